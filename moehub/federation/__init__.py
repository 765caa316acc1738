"""Contributors train experts together: Flower carries the messages, moehub decides.

    ServerApp (server/)            Flower            ClientApp (node/)
    the run: rounds, journal  ─── messages ───▶  the contributor's desk ── task ──▶ worker (torch, data)
    checks, aggregation/      ◀── replies ────                          ◀─ reply ─

`deploy/` starts and stops Flower's processes and guards their doors. Nothing but this package imports flwr.
"""
