"""How long something takes on a device: median and the tenth and ninetieth percentiles of many repeats."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WARM, REPEATS = 20, 100
_PATIENCE, _FEWEST = 2.0, 2
"""Seconds that one measurement takes at most: a slow work is repeated less often, though never less than the fewest."""
_CACHE = 256 << 20
"""Bytes written before each repeat on a GPU, so that nothing is found in its second-level cache (50 MiB on an H200)."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Seconds of a work."""

    median: float
    low: float
    """Tenth percentile."""
    high: float
    """Ninetieth percentile."""

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """Return the spread of at least two repeats."""
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        return cls(statistics.median(seconds), tenths[0], tenths[-1])

    def over(self, base: "Spread") -> str:
        """Return how many times the base's median this takes."""
        return f"{self.median / base.median:.3f} [{self.low / base.median:.3f}, {self.high / base.median:.3f}]"


class Timer:
    """Times works on one device."""

    def __init__(self, device: torch.device, *, warm: int = WARM, repeats: int = REPEATS) -> None:
        self.device, self.warm, self.repeats = device, warm, repeats

    def time(self, work: Work) -> Spread:
        """Return the seconds of a work, after warming up; on a GPU they are those between two events."""
        work()  # programs are compiled
        measure = self._on_gpu if self.device.type == "cuda" else self._on_cpu
        patient = int(_PATIENCE / measure(work, 1)[0])
        for _ in range(min(self.warm, patient // 5)):
            work()
        return Spread.of(measure(work, max(min(self.repeats, patient), _FEWEST)))

    def bandwidth(self, size: int) -> float:
        """Return the bytes per second that copying `size` bytes moves, read and written."""
        source = torch.ones(size, dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self.time(lambda: target.copy_(source)).median

    def captured(self, work: Work) -> Work | None:
        """Return a work as one CUDA graph, or None where there are none or it cannot be one."""
        return _graph(work, self.warm) if self.device.type == "cuda" else None

    def _on_gpu(self, work: Work, repeats: int) -> list[float]:
        emptied = torch.empty(_CACHE, dtype=torch.int8, device=self.device)
        pairs = []
        for _ in range(repeats):
            emptied.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize(self.device)
        return [begin.elapsed_time(end) / 1000 for begin, end in pairs]

    def _on_cpu(self, work: Work, repeats: int) -> list[float]:
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        return seconds


def _graph(work: Work, warm: int) -> Work | None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError:  # something waits for the device
        torch.cuda.synchronize()
        return None
    return graph.replay
