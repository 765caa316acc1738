"""Which system calls are let through, by name, and the numbers that they have on each kind of processor."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A kind of processor."""

    architecture: int
    """The kernel's `AUDIT_ARCH_*`."""
    numbers: Mapping[str, int]
    """Name → number of every call that is named in this file."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _numbers(table: str) -> dict[str, int]:
    return {name: int(number) for name, number in (entry.split(":") for entry in table.split())}


PLAIN = _names(
    """
    read write readv writev pread64 pwrite64 preadv pwritev open openat close close_range stat fstat lstat
    newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir getdents
    getdents64 lseek dup dup2 dup3 pipe pipe2 ftruncate fallocate fsync fdatasync umask flock fadvise64 sendfile
    copy_file_range mmap munmap mprotect mremap madvise brk msync mincore rt_sigaction rt_sigprocmask
    rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause alarm setitimer getitimer
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage getpid getppid gettid
    getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid uname sched_yield
    sched_getaffinity getcpu futex set_robust_list set_tid_address rseq membarrier poll ppoll select pselect6
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2 sendto recvfrom sendmsg recvmsg
    shutdown getsockname getpeername getsockopt getrandom exit exit_group restart_syscall wait4 waitid getrlimit
    """
)
"""Calls on what a process already has, on its own memory, time and threads, and to read files."""
ON_SCRATCH = _names(
    """
    mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink symlinkat link linkat truncate chmod
    fchmod fchmodat utime utimes utimensat
    """
)
"""Calls that change names and properties of files: Landlock does not look at all of them, so they need a mount."""
JUDGED = _names(
    """
    clone clone3 kill tkill tgkill prlimit64 fcntl ioctl socketpair
    """
)
"""Calls that are let through for some arguments alone (`moehub.sandbox.seccomp`)."""
MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        _numbers(
            """
            read:0 write:1 readv:19 writev:20 pread64:17 pwrite64:18 preadv:295 pwritev:296 open:2 openat:257
            close:3 close_range:436 stat:4 fstat:5 lstat:6 newfstatat:262 statx:332 statfs:137 fstatfs:138
            access:21 faccessat:269 faccessat2:439 readlink:89 readlinkat:267 getcwd:79 chdir:80 fchdir:81
            getdents:78 getdents64:217 lseek:8 dup:32 dup2:33 dup3:292 pipe:22 pipe2:293 ftruncate:77
            fallocate:285 fsync:74 fdatasync:75 umask:95 flock:73 fadvise64:221 sendfile:40 copy_file_range:326
            mmap:9 munmap:11 mprotect:10 mremap:25 madvise:28 brk:12 msync:26 mincore:27 rt_sigaction:13
            rt_sigprocmask:14 rt_sigreturn:15 rt_sigpending:127 rt_sigsuspend:130 rt_sigtimedwait:128
            sigaltstack:131 pause:34 alarm:37 setitimer:38 getitimer:36 nanosleep:35 clock_nanosleep:230
            clock_gettime:228 clock_getres:229 gettimeofday:96 time:201 times:100 getrusage:98 getpid:39
            getppid:110 gettid:186 getuid:102 geteuid:107 getgid:104 getegid:108 getgroups:115 getresuid:118
            getresgid:120 getpgrp:111 getpgid:121 getsid:124 uname:63 sched_yield:24 sched_getaffinity:204
            getcpu:309 futex:202 set_robust_list:273 set_tid_address:218 rseq:334 membarrier:324 poll:7
            ppoll:271 select:23 pselect6:270 epoll_create:213 epoll_create1:291 epoll_ctl:233 epoll_wait:232
            epoll_pwait:281 eventfd:284 eventfd2:290 sendto:44 recvfrom:45 sendmsg:46 recvmsg:47 shutdown:48
            getsockname:51 getpeername:52 getsockopt:55 getrandom:318 exit:60 exit_group:231 restart_syscall:219
            wait4:61 waitid:247 getrlimit:97 mkdir:83 mkdirat:258 rmdir:84 unlink:87 unlinkat:263 rename:82
            renameat:264 renameat2:316 symlink:88 symlinkat:266 link:86 linkat:265 truncate:76 chmod:90
            fchmod:91 fchmodat:268 utime:132 utimes:235 utimensat:280 clone:56 clone3:435 kill:62 tkill:200
            tgkill:234 prlimit64:302 fcntl:72 ioctl:16 socketpair:53
            """
        ),
    ),
    "aarch64": Machine(
        0xC00000B7,
        _numbers(
            """
            read:63 write:64 readv:65 writev:66 pread64:67 pwrite64:68 preadv:69 pwritev:70 openat:56 close:57
            close_range:436 fstat:80 newfstatat:79 statx:291 statfs:43 fstatfs:44 faccessat:48 faccessat2:439
            readlinkat:78 getcwd:17 chdir:49 fchdir:50 getdents64:61 lseek:62 dup:23 dup3:24 pipe2:59
            ftruncate:46 fallocate:47 fsync:82 fdatasync:83 umask:166 flock:32 fadvise64:223 sendfile:71
            copy_file_range:285 mmap:222 munmap:215 mprotect:226 mremap:216 madvise:233 brk:214 msync:227
            mincore:232 rt_sigaction:134 rt_sigprocmask:135 rt_sigreturn:139 rt_sigpending:136 rt_sigsuspend:133
            rt_sigtimedwait:137 sigaltstack:132 setitimer:103 getitimer:102 nanosleep:101 clock_nanosleep:115
            clock_gettime:113 clock_getres:114 gettimeofday:169 times:153 getrusage:165 getpid:172 getppid:173
            gettid:178 getuid:174 geteuid:175 getgid:176 getegid:177 getgroups:158 getresuid:148 getresgid:150
            getpgid:155 getsid:156 uname:160 sched_yield:124 sched_getaffinity:123 getcpu:168 futex:98
            set_robust_list:99 set_tid_address:96 rseq:293 membarrier:283 ppoll:73 pselect6:72 epoll_create1:20
            epoll_ctl:21 epoll_pwait:22 eventfd2:19 sendto:206 recvfrom:207 sendmsg:211 recvmsg:212 shutdown:210
            getsockname:204 getpeername:205 getsockopt:209 getrandom:278 exit:93 exit_group:94
            restart_syscall:128 wait4:260 waitid:95 getrlimit:163 mkdirat:34 unlinkat:35 renameat:38
            renameat2:276 symlinkat:36 linkat:37 truncate:45 fchmod:52 fchmodat:53 utimensat:88 clone:220
            clone3:435 kill:129 tkill:130 tgkill:131 prlimit64:261 fcntl:25 ioctl:29 socketpair:199
            """
        ),
    ),
}
"""What `uname` calls a machine → its table; the names that a machine lacks are no calls of it."""
