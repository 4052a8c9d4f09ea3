"""The store: what is kept, what names do, what is refused, and that damage is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks.store import torment
from compiler.errors import UserError
from compiler.store import Artifact, Store, Stored

Make = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Make:
    """``model(name, value)``: an ONNX file; with ``beside`` its weights lie in a second one."""

    def make(name: str, value: float, beside: str = "", **metadata: str) -> Path:
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1024])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1024])],
            [numpy_helper.from_array(np.full(1024, value, np.float32), "w")],
        )
        proto = helper.make_model(graph)
        helper.set_model_props(proto, metadata)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        onnx.save(proto, path, save_as_external_data=bool(beside), location=beside or None, size_threshold=0)
        return path

    return make


def test_the_same_is_kept_once(store: Store, model: Make) -> None:
    first = store.add(model("a.onnx", 1.0))
    again = store.add(model("a.onnx", 1.0))
    assert again == first
    assert [a.id for a in store.all()] == [first.id]
    assert first.id.startswith("o-")


def test_weights_beside_a_model_are_kept_and_shared(store: Store, model: Make, tmp_path: Path) -> None:
    kept = store.add(model("a.onnx", 1.0, beside="w.bin"))
    assert set(kept.files) == {"a.onnx", "w.bin"}
    out = store.check_out(kept.id, tmp_path / "out")
    assert np.array_equal(numpy_helper.to_array(onnx.load(out / "a.onnx").graph.initializer[0])[:2], [1.0, 1.0])
    other = store.add(model("c/a.onnx", 1.0, beside="w.bin", note="other"))
    assert other.id != kept.id
    assert other.files["w.bin"] == kept.files["w.bin"]


def test_a_model_is_found_as_the_parent_by_its_hash(store: Store, model: Make) -> None:
    original = store.add(model("a.onnx", 1.0))
    sha256 = original.files["a.onnx"].sha256
    derived = store.add(model("b.onnx", 2.0, **{"planish.source": "a.onnx", "planish.source.sha256": sha256}))
    assert (derived.kind, derived.parent) == ("model", original.id)
    assert derived.id.startswith("d-")


def test_an_original_cannot_come_in_as_something_derived(store: Store, model: Make) -> None:
    parent, original = store.add(model("a.onnx", 1.0)), model("b.onnx", 2.0)
    store.add(original)
    with pytest.raises(UserError, match=r"the store has b\.onnx as an original"):
        store.add(original, parent=parent.id)


def test_something_derived_cannot_come_in_as_an_original(store: Store, model: Make) -> None:
    parent, derived = store.add(model("a.onnx", 1.0)), model("b.onnx", 2.0)
    store.add(derived, parent=parent.id)
    with pytest.raises(UserError, match=r"the store has b\.onnx as derived"):
        store.add(derived)


def test_nothing_is_written_over(store: Store, model: Make) -> None:
    path = model("a.onnx", 1.0)
    kept = store.add(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists and is left as it is"):
        store.check_out(kept.id, path)
    assert path.read_bytes() == before


def test_names_and_beginnings_stand_for_artifacts(store: Store, model: Make) -> None:
    a, b = store.add(model("a.onnx", 1.0), tags=["best"]), store.add(model("b.onnx", 2.0))
    assert store.get("best") == store.get(a.id[:10]) == store.get(a.id[2:12]) == a
    store.tag(b.id, "best")
    assert store.get("best") == b
    with pytest.raises(UserError, match=r"no artifact 'bets'.*best"):
        store.get("bets")


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a b", "abcdef", "o-123456"])
def test_a_tag_is_no_path_and_no_identifier(store: Store, model: Make, name: str) -> None:
    with pytest.raises(UserError, match="tag"):
        store.add(model("a.onnx", 1.0), tags=[name])
    assert store.all() == []


def test_only_what_is_proven_is_promoted(store: Store, model: Make) -> None:
    original = store.add(model("a.onnx", 1.0))
    derived = store.add(model("b.onnx", 2.0), parent=original.id)
    with pytest.raises(UserError, match="is an original model"):
        store.promote(original.id, "production", unproven=True)
    with pytest.raises(UserError, match=r"nothing says that b\.onnx was proven"):
        store.promote(derived.id, "production")
    store.promote(derived.id, "production", "first", unproven=True)
    assert store.get("@production") == derived


def test_a_channel_remembers_and_keeps_what_it_pointed_to(store: Store, model: Make) -> None:
    original = store.add(model("a.onnx", 1.0))
    old, new = (store.add(model(f"{v}.onnx", v), parent=original.id) for v in (2.0, 3.0))
    for each in (old, new):
        store.promote(each.id, "production", unproven=True)
    assert [p["artifact"] for p in store.names.channels()["production"]] == [old.id, new.id]
    assert store.collect(untagged=True).artifacts == ()
    with pytest.raises(UserError, match="'@production' points to it"):
        store.remove(old.id)


def test_collecting_keeps_originals_names_and_ancestors(store: Store, model: Make) -> None:
    original = store.add(model("a.onnx", 1.0))
    middle = store.add(model("b.onnx", 2.0), parent=original.id)
    tagged = store.add(model("c.onnx", 3.0), parent=middle.id, tags=["keep"])
    loose = store.add(model("d.onnx", 4.0), parent=original.id)
    assert store.collect(untagged=True, older_than=1.0).artifacts == ()
    done = store.collect(untagged=True)
    assert done.artifacts == (loose.id,)
    assert done.objects == 1
    assert {a.id for a in store.all()} == {original.id, middle.id, tagged.id}
    assert store.verify() == []


def test_what_others_were_made_of_is_not_removed(store: Store, model: Make) -> None:
    original = store.add(model("a.onnx", 1.0))
    store.add(model("b.onnx", 2.0), parent=original.id)
    with pytest.raises(UserError, match=r"b\.onnx was made of it"):
        store.remove(original.id)


def test_damage_is_found(store: Store, model: Make) -> None:
    kept = store.add(model("a.onnx", 1.0), tags=["best"])
    place = store.folder.object(kept.files["a.onnx"].sha256)
    content = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(content[:-1] + b"?")
    assert ["its content is not what its name says" in p.what for p in store.verify()] == [True]
    store.add(model("a.onnx", 1.0))
    assert store.verify() == [], "adding it again mends it"
    place.unlink()
    assert ["is missing" in p.what for p in store.verify()] == [True]
    store.add(model("a.onnx", 1.0))
    record = store.folder.root / "artifacts" / f"{kept.id}.json"
    record.write_text(record.read_text().replace('"a.onnx"', '"b.onnx"'))
    assert any("not what its name says" in p.what for p in store.verify())
    record.unlink()
    assert [p.where for p in store.verify()] == ["best"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no store, and not empty"):
        Store.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


names = st.text("abcdefgh/._-", min_size=1, max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    st.dictionaries(names, st.builds(Stored, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0))),
    st.dictionaries(st.text(), scalars),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_records_come_back_as_they_were(
    files: dict[str, Stored], recipe: dict[str, object], metrics: dict[str, float]
) -> None:
    artifact = Artifact("package", "m", files, recipe=recipe, metrics=metrics, added="2026-01-01T00:00:00+00:00")
    back = Artifact.from_json(artifact.to_json())
    assert back == artifact
    assert back.id == artifact.id


def test_writers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    outcome = torment(tmp_path, cycles=12, writers=3, seed=1)
    assert outcome.sound, outcome
    assert outcome.killed == 12
    assert outcome.done["added"] > 0
