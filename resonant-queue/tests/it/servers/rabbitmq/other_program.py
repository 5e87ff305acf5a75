"""Another program at our queues in RabbitMQ, written after docs/formats/queue.md alone. Needs pika.

    other_program.py publish URL QUEUE PARTITIONS FIRST COUNT
    other_program.py consume URL QUEUE PARTITION EPOCH

publish: numbers FIRST, FIRST + 1, ... as JSON, keyed by number % 10, every one confirmed.
consume: what the partition holds until it is empty for a second; prints "key number" for each before it acknowledges.
"""

import json
import sys
import time
import uuid

import pika

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def rotate(value, by):
    return ((value << by) | (value >> (64 - by))) & MASK


def xxh64(data):
    def turn(sum_, lane):
        return rotate((sum_ + lane * P2) & MASK, 31) * P1 & MASK

    def word(at, size):
        return int.from_bytes(data[at : at + size], "little")

    at, length = 0, len(data)
    if length >= 32:
        sums = [(P1 + P2) & MASK, P2, 0, (-P1) & MASK]
        while at + 32 <= length:
            sums = [turn(sums[lane], word(at + 8 * lane, 8)) for lane in range(4)]
            at += 32
        hash_ = sum(rotate(sums[lane], by) for lane, by in enumerate((1, 7, 12, 18))) & MASK
        for lane in sums:
            hash_ = ((hash_ ^ turn(0, lane)) * P1 + P4) & MASK
    else:
        hash_ = P5
    hash_ = (hash_ + length) & MASK
    while at + 8 <= length:
        hash_ = (rotate(hash_ ^ turn(0, word(at, 8)), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= length:
        hash_ = (rotate(hash_ ^ (word(at, 4) * P1 & MASK), 23) * P2 + P3) & MASK
        at += 4
    while at < length:
        hash_ = rotate(hash_ ^ (data[at] * P5 & MASK), 11) * P1 & MASK
        at += 1
    hash_ = (hash_ ^ (hash_ >> 33)) * P2 & MASK
    hash_ = (hash_ ^ (hash_ >> 29)) * P3 & MASK
    return hash_ ^ (hash_ >> 32)


# The vectors of the format.
for key, hash_, of_16 in [
    ("", 0xEF46DB3751D8E999, 9),
    ("a", 0xD24EC4F1A98C6E5B, 11),
    ("agent_123", 0xCE76BFBCE4E700FD, 13),
    ("DFW", 0x28E5E5D144475A71, 1),
    ("ORD", 0x15A9790F4B1CD862, 2),
    ("Zürich", 0x85F1DEBCBB1A8279, 9),
    ("7", 0x184A52B6A00D7AB7, 7),
]:
    assert xxh64(key.encode()) == hash_ and hash_ % 16 == of_16, key


def publish(channel, queue, partitions, first, count):
    channel.confirm_delivery()
    for number in range(first, first + count):
        key = str(number % 10)
        properties = pika.BasicProperties(
            delivery_mode=2,
            content_type="application/json",
            message_id=uuid.uuid4().hex,
            headers={"resonant-key": key, "resonant-published": int(time.time() * 1000)},
        )
        partition = xxh64(key.encode()) % partitions
        # Raises unless it was routed and confirmed.
        channel.basic_publish("", f"{queue}.p.{partition}", json.dumps(number), properties, mandatory=True)


def consume(connection, channel, queue, partition, epoch):
    number = uuid.uuid4().hex
    record = {"type": "open", "partition": partition, "epoch": epoch}
    log = connection.channel()
    log.confirm_delivery()
    log.basic_publish(
        "",
        f"{queue}.log",
        json.dumps(record),
        pika.BasicProperties(delivery_mode=2, message_id=number),
        mandatory=True,
    )
    log.basic_qos(prefetch_count=100)
    parked = set()
    for method, properties, body in log.consume(f"{queue}.log", arguments={"x-stream-offset": "first"}):
        log.basic_ack(method.delivery_tag)
        record = json.loads(body)
        if record.get("partition") == partition:
            if record["type"] == "open" and record["epoch"] > epoch:
                sys.exit("fenced")
            if record["type"] == "park":
                parked.add(record["key"])
            if record["type"] == "drained":
                parked.discard(record["key"])
        if properties.message_id == number:
            break
    log.close()
    channel.basic_qos(prefetch_count=512)
    for method, properties, body in channel.consume(f"{queue}.p.{partition}", inactivity_timeout=1):
        if method is None:
            break
        headers = properties.headers or {}
        if "resonant-marker" not in headers:
            if headers.get("resonant-key") in parked:
                sys.exit("a parked key: putting it aside is not needed here")
            print(headers.get("resonant-key"), json.loads(body), flush=True)
        channel.basic_ack(method.delivery_tag)
    # Never cancelled: the end of the channel hands the partition over.
    connection.close()


def main():
    mode, url, queue, *numbers = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    if mode == "publish":
        publish(channel, queue, *map(int, numbers))
        connection.close()
    else:
        consume(connection, channel, queue, *map(int, numbers))


main()
