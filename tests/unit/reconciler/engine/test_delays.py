from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.delays import Delays
from reconciler.model.identity import Key, Kind

KEYS = [Key(Kind.IMAGE, name) for name in "abc"]
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("ripe"), st.just(KEYS[0]), st.integers(0, 20)),
    )
)


@given(MOVES)
def test_delays_do_what_a_plain_table_of_due_times_does(moves: list[tuple[str, Key, int]]) -> None:
    delays, model = Delays(), dict[Key, int]()
    for move, key, at in moves:
        if move == "put":
            delays.put(key, at)
            model[key] = min(at, model.get(key, at))
        elif move == "drop":
            delays.drop(key)
            model.pop(key, None)
        else:
            ripe = delays.ripe(at)
            assert [model[one] for one in ripe] == sorted(due for due in model.values() if due <= at)
            model = {one: due for one, due in model.items() if due > at}
        assert delays.due == model
        assert delays.earliest() == min(model.values(), default=None)


def test_equal_times_keep_the_order_in_which_they_were_put() -> None:
    delays = Delays()
    for key in reversed(KEYS):
        delays.put(key, 1.0)
    assert delays.ripe(1.0) == list(reversed(KEYS))


def test_a_key_put_and_dropped_for_ever_keeps_no_memory() -> None:
    delays = Delays()
    for n in range(10_000):
        delays.put(KEYS[0], 1e9 - n)
        if n % 3 == 0:
            delays.drop(KEYS[0])
    assert len(delays._heap) < 100
