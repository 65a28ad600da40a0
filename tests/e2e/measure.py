"""The latency of events, and how evenly they arrive.

The recording upstream writes into each event when it was sent, on the clock that all processes of a machine share.
"""

import statistics
import time
from dataclasses import dataclass


@dataclass
class Timing:
    """The times of one stream at its reader."""

    asked_ns: int
    sent_ns: list
    read_ns: list

    def first_event_ms(self):
        return (self.read_ns[0] - self.asked_ns) / 1e6

    def gaps_ms(self):
        return [(later - sooner) / 1e6 for sooner, later in zip(self.read_ns, self.read_ns[1:])]

    def way_ms(self):
        return [(read - sent) / 1e6 for sent, read in zip(self.sent_ns, self.read_ns)]

    def expect_spread(self, gap_ms):
        """Events sent `gap_ms` apart arrive about as far apart. The limits are wide, so that only buffering exceeds them."""
        whole_ms = (self.read_ns[-1] - self.read_ns[0]) / 1e6
        announced_ms = gap_ms * (len(self.read_ns) - 1)
        assert whole_ms > announced_ms / 2, f"{len(self.read_ns)} events within {whole_ms:.0f} ms: buffered"
        assert statistics.median(self.gaps_ms()) > gap_ms / 2, f"events arrive in groups: {self.gaps_ms()}"
        assert statistics.median(self.way_ms()) < gap_ms * 4, f"events arrive late: {self.way_ms()}"


def timed_stream(client, model, request_id, events, gap_ms):
    """One stream through openai-python, which must contain every piece."""
    prompt = f"id={request_id} events={events} gap_ms={gap_ms}"
    sent, read = [], []
    asked = time.monotonic_ns()
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True
    )
    for event in stream:
        now = time.monotonic_ns()
        if event.choices and (content := (event.choices[0].delta.content or "").strip()):
            name, sent_at = content.split("@")
            assert name == f"{request_id}:{len(sent)}", (name, len(sent))
            sent.append(int(sent_at))
            read.append(now)
    assert len(sent) == events, f"{len(sent)} of {events} events"
    return Timing(asked, sent, read)


def table(title, timings):
    """Medians over all runs of each route, and the slowest twentieth; one line for each route."""
    rows = [title, f"  {'':<12}{'first event':>12}{'gap p50':>10}{'gap p95':>10}{'way p50':>10}{'way p95':>10}"]
    for way, runs in timings.items():
        gaps = [gap for run in runs for gap in run.gaps_ms()]
        ways = [one for run in runs for one in run.way_ms()]
        first = statistics.median(run.first_event_ms() for run in runs)
        figures = (first, percentile(gaps, 50), percentile(gaps, 95), percentile(ways, 50), percentile(ways, 95))
        rows.append(f"  {way:<12}{figures[0]:>12.2f}" + "".join(f"{figure:>10.2f}" for figure in figures[1:]))
    return "\n".join(rows)


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
