"""`waybill topics`: make and show the topics."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from queries.terminal import Text
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Json, Kafka, out, resolve, write_json

app = typer.Typer(help="Make and show the topics.", no_args_is_help=True)


@app.command()
def create(
    kafka: Kafka = None,
    partitions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Partitions of each topic: the most workers that share it.")
    ] = None,
    replication: Annotated[int | None, typer.Option(metavar="N", min=1, help="Copies of each partition.")] = None,
    home: Home = None,
) -> None:
    """Create the topics that are missing; those that are there stay as they are.

    Example: `waybill topics create --kafka kafka:9092 --partitions 12 --replication 3`
    """
    settings = resolve(home=home, kafka=kafka, partitions=partitions, replication=replication)
    from waybill.dev_topics import make_topics  # noqa: PLC0415 - `--help` needs none of it

    listen()
    made = asyncio.run(
        make_topics(settings.kafka_settings(), partitions=settings.partitions, replication=settings.replication)
    )
    out.print(f"created {', '.join(made)}" if made else "all topics are there already")


@app.command("list")
def list_(as_json: Json = False, kafka: Kafka = None, home: Home = None) -> int:  # noqa: FBT002 - a flag
    """Show the topics, what is on them and whether they are there; exit code 1 where one is missing.

    Example: `waybill topics list`
    """
    settings = resolve(home=home, kafka=kafka)
    from streams.kafka import partition_counts  # noqa: PLC0415 - `--help` needs none of it
    from streams.topics import ALL, WORKERS  # noqa: PLC0415 - the same

    listen()
    cluster = settings.kafka_settings()
    topics = (*ALL, WORKERS)
    counts = asyncio.run(partition_counts(cluster, topics))
    missing = [topic.name for topic in topics if topic.name not in counts]
    if as_json:
        write_json(
            [
                {
                    "topic": cluster.name(topic),
                    "partitions": counts.get(topic.name),
                    "kept": topic.kept,
                    "about": topic.about,
                }
                for topic in topics
            ]
        )
        return 1 if missing else 0
    table = Table("topic", "partitions", "kept", "what is on it")
    for topic in topics:
        there = str(counts[topic.name]) if topic.name in counts else Text("missing", "red")
        table.add_row(cluster.name(topic), there, topic.kept, topic.about)
    out.print(table)
    if missing:
        out.print("run `waybill topics create`")
    return 1 if missing else 0
