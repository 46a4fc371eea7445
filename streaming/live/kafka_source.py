"""Kafka as a source of events: bounded drains from the offsets that were committed with shards.

The offsets in the commit of the live join are the truth. They are also sent to the broker's
consumer group, where lag monitors look for them, but never read from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from urllib.parse import parse_qsl, urlsplit

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from ctr.errors import ConfigError, StreamError, nearest
from streaming.inputs import IMPRESSIONS
from streaming.live.messages import is_arrow, parse_messages
from streaming.live.source import Drained, Offsets, channel_name
from streaming.stage import Reading

log = logging.getLogger(__name__)

_MESSAGES = 10_000
_USUAL_BYTES = 512
_METADATA_S = 15.0
#: How often new partitions are looked for.
_DISCOVER_S = 60.0


class KafkaSource:
    """Reads topics of impressions and events.

    Args:
        brokers: ``host:port,...``.
        topics: Topic by ``impressions`` or label.
        reading: How messages are read.
        group: Consumer group that offsets are reported to.

    Raises:
        ConfigError: a topic is missing or unknown, or the brokers cannot be reached.
    """

    def __init__(
        self, brokers: str, topics: Mapping[str, str], reading: Reading, group: str = "octr"
    ) -> None:
        source = reading.source
        roles = {channel_name(r, source): r for r in range(IMPRESSIONS, len(source.events))}
        for name in topics:
            if name not in roles:
                raise ConfigError(
                    f"--source kafka: no topic is wanted for {name!r}: {nearest(name, roles)}"
                )
        missing = [name for name in roles if name not in topics]
        if missing:
            raise ConfigError(
                f"--source kafka: name the topics of {', '.join(missing)}, as in "
                f"?{missing[0]}=TOPIC."
            )
        self._reading = reading
        self._roles = {topic: roles[name] for name, topic in topics.items()}
        self._brokers = brokers
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": group,
                "enable.auto.commit": False,
                # Never start somewhere else unasked: what is gone must be seen to be gone.
                "auto.offset.reset": "error",
            }
        )
        self._partitions: list[tuple[str, int]] = []
        self._assigned: Offsets | None = None
        self._discovered = 0.0
        self._discover()

    @classmethod
    def from_url(cls, url: str, reading: Reading) -> KafkaSource:
        """Opens ``kafka://HOST:PORT,...?impressions=TOPIC&LABEL=TOPIC&group=NAME``.

        Raises:
            ConfigError: as of the class.
        """
        parts = urlsplit(url)
        topics = dict(parse_qsl(parts.query))
        group = topics.pop("group", "octr")
        if not parts.netloc:
            raise ConfigError(f"--source {url}: names no broker. Use kafka://HOST:PORT?...")
        return cls(parts.netloc, topics, reading, group)

    def channels(self) -> tuple[str, ...]:
        """One for each partition of a topic."""
        return tuple(_place(topic, number) for topic, number in self._partitions)

    def drain(
        self, offsets: Offsets, clocks: Mapping[str, int], max_bytes: int, timeout_s: float
    ) -> tuple[list[Drained], Offsets]:
        """Reads messages of all partitions; the brokers' own fairness decides between them.

        Raises:
            StreamError: messages after an offset are gone from the broker.
        """
        self._seek(offsets)
        found: dict[str, list[Message]] = {}
        after, left = dict(offsets), max_bytes
        while left > 0:
            # So many that a drain ends near its size, whatever the size of a message.
            number = min(_MESSAGES, 1 + left // _USUAL_BYTES)
            messages = self._consumer.consume(number, timeout_s)
            if not messages:
                break
            timeout_s = 0.0
            for message in messages:
                if message.error():
                    self._check(message.error())
                    continue
                place = _place(message.topic(), message.partition())
                found.setdefault(place, []).append(message)
                after[place] = message.offset() + 1
                left -= len(message.value() or b"")
        self._assigned = dict(after)
        parts = [part for place in sorted(found) for part in self._parts(place, found[place])]
        return parts, after

    def committed(self, offsets: Offsets) -> None:
        """Reports offsets to the consumer group; a failure there loses nothing."""
        places = [
            TopicPartition(topic, number, offsets[_place(topic, number)])
            for topic, number in self._partitions
            if _place(topic, number) in offsets
        ]
        try:
            if places:
                self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            log.warning("offsets could not be reported to the group: %s", error)

    def close(self) -> None:
        """Leaves the brokers."""
        self._consumer.close()

    def _discover(self) -> None:
        self._discovered = time.monotonic()
        found: list[tuple[str, int]] = []
        for topic in self._roles:
            try:
                told = self._consumer.list_topics(topic, timeout=_METADATA_S).topics[topic]
            except KafkaException as error:
                raise ConfigError(f"--source kafka://{self._brokers}: {error}.") from None
            if told.error is not None:
                raise ConfigError(
                    f"--source kafka://{self._brokers}: topic {topic!r}: {told.error}."
                )
            found += [(topic, number) for number in sorted(told.partitions)]
        self._partitions = found

    def _seek(self, offsets: Offsets) -> None:
        """Assigns the partitions, if what was read last is not where to go on."""
        before = self._partitions
        if time.monotonic() - self._discovered > _DISCOVER_S:
            self._discover()
        if self._assigned == offsets and before == self._partitions:
            return
        self._consumer.assign(
            [
                TopicPartition(topic, number, offsets.get(_place(topic, number), OFFSET_BEGINNING))
                for topic, number in self._partitions
            ]
        )

    def _check(self, error: KafkaError) -> None:
        """Goes on after what passes by itself."""
        gone = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)
        if error.code() in gone:
            raise StreamError(
                f"kafka://{self._brokers}: messages after a committed offset are no longer there "
                f"({error.str()}). Raise the topic's retention; to go on without them, stream "
                "into another --output."
            )
        log.warning("kafka: %s", error.str())

    def _parts(self, place: str, messages: list[Message]) -> list[Drained]:
        """Groups text messages of a partition; each Arrow message stands alone."""
        text = [m for m in messages if not is_arrow(m.value() or b"")]
        parts = [self._drained(place, [m]) for m in messages if is_arrow(m.value() or b"")]
        if text:
            alone = tuple(self._drained(place, [m]) for m in text) if len(text) > 1 else ()
            parts.append(self._drained(place, text, alone))
        return parts

    def _drained(
        self, place: str, messages: list[Message], alone: tuple[Drained, ...] = ()
    ) -> Drained:
        role = self._roles[messages[0].topic()]
        values = [m.value() or b"" for m in messages]
        name = f"{place}@{messages[0].offset()}"
        parse = partial(parse_messages, values, role, self._reading, name)
        return Drained(place, role, name, sum(map(len, values)), parse, alone)


def _place(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"
