from failover.clock import SYSTEM
from failover.notifiers.memory import MemoryNotifier, MemoryNotifierConfig, forget, messages


def test_it_keeps_what_it_is_told() -> None:
    notifier = MemoryNotifier("chat", MemoryNotifierConfig(), SYSTEM)
    notifier.send("one")
    notifier.send("two")
    assert notifier.log == ["one", "two"]
    assert messages == {}


def test_notifiers_of_one_name_share_what_they_keep() -> None:
    MemoryNotifier("chat", MemoryNotifierConfig(shared="team"), SYSTEM).send("one")
    MemoryNotifier("mail", MemoryNotifierConfig(shared="team"), SYSTEM).send("two")
    assert messages["team"] == ["one", "two"]
    forget()
    assert messages == {}
