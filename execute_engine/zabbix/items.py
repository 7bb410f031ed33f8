"""What Zabbix knows of us: items, what their values mean, and when it is a problem.

The template file, and the tables in docs/zabbix.md, are made of these declarations.
An expression names its own template /T/.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HOST_GROUP = "Execute Engine"
TEMPLATE_GROUP = "Templates/Execute Engine"
SILENCE, FULL, GROWS = "{$EXEC.SILENCE}", "{$EXEC.FULL.PERIOD}", "{$EXEC.SPOOL.PERIOD}"
SHARE = "{$EXEC.SHARE}"
DEFAULT_BEAT_SECONDS = 30
SHORTEST_SILENCE_SECONDS = 30  # Zabbix looks for missing values every 30 s


@dataclass(frozen=True)
class Macro:
    name: str
    value: str
    words: str


@dataclass(frozen=True)
class ValueMap:
    name: str
    meanings: dict[int, str]


@dataclass(frozen=True)
class Item:
    """A trapper item, or with a formula one that Zabbix works out every minute."""

    key: str
    name: str
    words: str
    units: str = ""
    value_map: str = ""
    is_text: bool = False
    formula: str = ""


@dataclass(frozen=True)
class Trigger:
    """severity is one of Zabbix's: INFO, WARNING, AVERAGE, HIGH, DISASTER."""

    name: str
    expression: str
    severity: str
    words: str


@dataclass(frozen=True)
class Template:
    name: str
    words: str
    items: tuple[Item, ...]
    triggers: tuple[Trigger, ...]
    macros: tuple[Macro, ...]
    value_maps: tuple[ValueMap, ...] = field(default=())


def silence(beat_seconds: int) -> Macro:
    """The macro that depends on [Data_Send] ZABBIX."""
    value = f"{max(3 * beat_seconds, SHORTEST_SILENCE_SECONDS)}s"
    return Macro(SILENCE, value, "Without a ping for so long it is gone: three intervals, at least 30 s.")


def _twice(key: str, operator: str) -> str:
    """The last two values are so (eq or gt 0). One alone, as of a host whose first value it is, is no problem yet."""
    return f'count(/T/{key},#2,"{operator}","0")=2'


def _still(key: str, operator: str) -> str:
    """The same, and values come: of an engine that is gone its missing ping says enough, whatever it said last."""
    return f"{_twice(key, operator)} and nodata(/T/{key},{SILENCE})=0"


def _lasts(key: str, period: str) -> str:
    """Values came before this period, too: what is said of it is not said of a daemon that has just begun."""
    return f"count(/T/{key},{period}:now-{period})>0"


ENGINE = Template(
    "Execute Engine",
    "One execute-engine daemon. It sends all values itself, every [Data_Send] ZABBIX seconds.",
    items=(
        Item("exec.engine.ping", "Engine: ping", "1, sent only while the consumer has proven progress."),
        Item("exec.engine.alive", "Engine: alive", "Whether pings came of late.", value_map="Yes or no",
             formula=f"count(//exec.engine.ping,{SILENCE})>0"),
        Item("exec.engine.consumer", "Engine: consumer", "Whether the consumer moves.", value_map="Consumer"),
        Item("exec.engine.restarts", "Engine: restarts",
             "Consumers and heartbeats that were started again because they had ended, since the beat before."),
        Item("exec.engine.slots", "Engine: slots", "Hosts that it runs at once, at most.", "!hosts"),
        Item("exec.engine.slots_used", "Engine: slots used", "Slots that are taken.", "!hosts"),
        Item("exec.engine.units", "Engine: units running", "Units that it runs.", "!units"),
        Item("exec.engine.hosts", "Engine: hosts running", "Hosts that it runs.", "!hosts"),
        Item("exec.engine.hosts_finished", "Engine: hosts finished", "Results since the beat before.", "!hosts"),
        Item("exec.engine.hosts_failed", "Engine: hosts failed", "Of these failed, unreachable or lost.", "!hosts"),
        Item("exec.engine.hosts_timed_out", "Engine: hosts timed out", "Of these ended at a deadline.", "!hosts"),
        Item("exec.engine.oldest_host_seconds", "Engine: oldest running host",
             "For how long the host that began first has been running; 0: none runs.", "s"),
        Item("exec.engine.claim_lag", "Engine: claim lag",
             "Units published in its partitions and not yet taken; 0 without Kafka.", "!units"),
        Item("exec.engine.spooled", "Engine: results spooled", "Results on disk that the database does not have."),
        Item("exec.engine.spool_bytes", "Engine: spool size", "What these take on disk.", "B"),
        Item("exec.engine.share", "Engine: share", "Whether it sees the project files.", value_map="Share"),
        Item("exec.engine.database", "Engine: database", "Whether the database answers.", value_map="Server"),
        Item("exec.engine.kafka", "Engine: Kafka", "Whether Kafka answers.", value_map="Server"),
        Item("exec.engine.unkillable", "Engine: unkillable processes",
             "Processes that no signal ends; each keeps its slot."),
        Item("exec.engine.dropped", "Engine: results dropped",
             "Results of units that meanwhile belonged to another engine, since its start."),
        Item("exec.engine.braked", "Engine: braked",
             "Whether it takes itself for the sick one and tries one unit now and then.", value_map="Yes or no"),
        Item("exec.engine.version", "Engine: version", "The release that runs.", is_text=True),
    ),
    triggers=(
        Trigger("Engine: no ping", f"nodata(/T/exec.engine.ping,{SILENCE})=1", "HIGH",
                "The engine is stopped, its machine or the way to Zabbix is down, or its consumer is stuck. Look at"
                " systemctl status execute-engine; the log says why values were refused."),
        Trigger("Engine: consumer is stuck", _still("exec.engine.consumer", "eq"), "HIGH",
                "The consumer's loop stood still for two intervals. The supervisor ends it after 30 s and starts"
                " another; where this comes again, see the log, the disk of STATE_DIR, the load of the machine."),
        Trigger("Engine: children end again and again",
                "sum(/T/exec.engine.restarts,{$EXEC.RESTARTS.PERIOD})>{$EXEC.RESTARTS.BORNE}", "AVERAGE",
                "The engine works in between, so its pings go on. The log says what each of them ended with (child"
                " ended); where it is a signal that nobody here has sent, look at the machine's memory."),
        Trigger("Engine: slots are exhausted",
                f"min(/T/exec.engine.slots_used,{FULL})>=last(/T/exec.engine.slots)*{{$EXEC.FULL.PERCENT}}/100"
                f" and {_lasts('exec.engine.slots_used', FULL)}",
                "WARNING",
                "For 10 minutes there was hardly a free slot: tasks wait. Add engines or raise SLOTS; where the oldest"
                " running host grows too, hung hosts hold the slots until their deadlines."),
        Trigger("Engine: share is not seen", f"{_still('exec.engine.share', 'eq')} and {SHARE}=1", "AVERAGE",
                "FILES_DIR does not answer: tasks that need project files go to other engines. Look at the mount"
                " (systemctl status mnt.mount) and the NFS server."),
        Trigger("Engine: database is away", _still("exec.engine.database", "eq"), "HIGH",
                "Nothing is claimed, running units go on, results are kept in the spool until it is back."),
        Trigger("Engine: Kafka is away", _still("exec.engine.kafka", "eq"), "AVERAGE",
                "Tasks are accepted, and wait until it is back. Look at the brokers."),
        Trigger("Engine: spool grows",
                f"monoinc(/T/exec.engine.spooled,{GROWS})=1"
                f" and last(/T/exec.engine.spooled)>min(/T/exec.engine.spooled,{GROWS})"
                f" and {_lasts('exec.engine.spooled', GROWS)}",
                "AVERAGE",
                "For 5 minutes results came faster than the database took them. At SPOOL_SIZE no unit is taken."),
        Trigger("Engine: many hosts time out",
                "sum(/T/exec.engine.hosts_timed_out,{$EXEC.TIMEOUTS.PERIOD})>"
                "sum(/T/exec.engine.hosts_finished,{$EXEC.TIMEOUTS.PERIOD})*{$EXEC.TIMEOUTS.PERCENT}/100",
                "WARNING",
                "More than 5% of the hosts that ended in 15 minutes did so at a deadline. Their blame says what they"
                " were stuck on; if it is the same everywhere, it is the task, or the network of this engine."),
        Trigger("Engine: unkillable processes", _still("exec.engine.unkillable", "gt"), "WARNING",
                "A process hangs in the kernel, as on a dead share, and keeps its slot. GET /engines/ names it."),
        Trigger("Engine: braked", _still("exec.engine.braked", "gt"), "WARNING",
                "Its last units ended unreachable, those of others did not. Look at this engine's network and key."),
    ),
    macros=(
        silence(DEFAULT_BEAT_SECONDS),
        Macro("{$EXEC.RESTARTS.BORNE}", "2", "So many restarts are borne."),
        Macro("{$EXEC.RESTARTS.PERIOD}", "15m", "The time over which they are counted."),
        Macro(FULL, "10m", "After so long without room it is worth a look."),
        Macro("{$EXEC.FULL.PERCENT}", "90", "With so many of its slots in use an engine counts as full."),
        Macro(GROWS, "5m", "A spool that grows for so long does not empty by itself."),
        Macro(SHARE, "1", "Whether its tasks need project files. 0 on the host of an engine that has no share."),
        Macro("{$EXEC.TIMEOUTS.PERIOD}", "15m", "The time over which timeouts are counted."),
        Macro("{$EXEC.TIMEOUTS.PERCENT}", "5", "Of the finished hosts."),
    ),
    value_maps=(
        ValueMap("Yes or no", {0: "no", 1: "yes"}),
        ValueMap("Consumer", {0: "stuck", 1: "moves"}),
        ValueMap("Share", {0: "not seen", 1: "seen"}),
        ValueMap("Server", {0: "away", 1: "answers", 2: "not used"}),
    ),
)  # fmt: skip

DISTRIBUTE = Template(
    "Execute Engine distribute",
    "One distribute daemon. It sends all values itself, every [Data_Send] ZABBIX seconds.",
    items=(
        Item("exec.distribute.ping", "Distribute: ping",
             "1, sent only while its web and the database answer and a dispatcher leads."),
        Item("exec.distribute.leader", "Distribute: leader", "Whether its dispatcher is the one that leads.",
             value_map="Dispatcher"),
        Item("exec.distribute.leaders", "Distribute: leaders of all", "How many of all distributes lead; 1 is right.",
             formula=f'sum(max_foreach(/*/exec.distribute.leader?[group="{HOST_GROUP}"],{SILENCE}))'),
        Item("exec.distribute.tasks_queued", "Distribute: tasks queued", "Tasks of which nothing runs yet.", "!tasks"),
        Item("exec.distribute.tasks_running", "Distribute: tasks running", "Tasks that have begun.", "!tasks"),
        Item("exec.distribute.units_waiting", "Distribute: units waiting", "Units that no engine has.", "!units"),
        Item("exec.distribute.oldest_unit_seconds", "Distribute: oldest waiting unit",
             "For how long it has waited.", "s"),
        Item("exec.distribute.errors", "Distribute: errors", "Answers with a code from 500 on since the beat before."),
        Item("exec.distribute.version", "Distribute: version", "The release that runs.", is_text=True),
    ),
    triggers=(
        Trigger("Distribute: no ping", f"nodata(/T/exec.distribute.ping,{SILENCE})=1", "HIGH",
                "distribute is stopped, its web or the database does not answer, no dispatcher leads, or its machine or"
                " the way to Zabbix is down. Look at systemctl status distribute; other replicas go on."),
        Trigger("Distribute: no dispatcher leads", _twice("exec.distribute.leaders", "eq"), "HIGH",
                "Tasks are accepted, and wait: all dispatchers hang or are stopped, or none reaches the database."),
        Trigger("Distribute: errors", "sum(/T/exec.distribute.errors,{$EXEC.ERRORS.PERIOD})>{$EXEC.ERRORS.BORNE}",
                "AVERAGE",
                "Requests were answered with 500 and more; the log has a line for each, with the reason."),
        Trigger("Distribute: units wait too long",
                "last(/T/exec.distribute.oldest_unit_seconds)>{$EXEC.WAIT.SECONDS}", "WARNING",
                "No engine has room for what waits, none sees the files that it needs, or dispatching is held:"
                " GET /tasks/{id}/ says so in waits_for."),
    ),
    macros=(
        silence(DEFAULT_BEAT_SECONDS),
        Macro("{$EXEC.ERRORS.BORNE}", "5", "So many error answers are borne."),
        Macro("{$EXEC.ERRORS.PERIOD}", "5m", "The time over which they are counted."),
        Macro("{$EXEC.WAIT.SECONDS}", "1800", "A unit may wait for so long."),
    ),
    value_maps=(ValueMap("Dispatcher", {0: "stands by", 1: "leads"}),),
)  # fmt: skip

TEMPLATES = (ENGINE, DISTRIBUTE)
