"""A Flower App that does nothing: its rounds are what Flower itself takes.

`benchmarks.federation.cost` bundles this file.
"""

import json
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001 (Flower's signature)
    """Answer at once."""
    return Message(RecordDict(), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node in every round, and write down the seconds of each round."""
    configuration = context.run_config
    while len(nodes := list(grid.get_node_ids())) < int(configuration["nodes"]):
        time.sleep(1)
    seconds = []
    for _ in range(int(configuration["rounds"])):
        began = time.monotonic()
        replies = list(grid.send_and_receive([Message(RecordDict(), node, "train") for node in nodes]))
        if any(reply.has_error() for reply in replies):
            raise RuntimeError(f"a node failed: {[reply.error for reply in replies if reply.has_error()]}")
        seconds.append(time.monotonic() - began)
    Path(str(configuration["output"])).write_text(json.dumps(seconds), encoding="utf-8")
