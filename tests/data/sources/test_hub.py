import time

import pytest

from xformer.data.sources.hub import load_dataset_splits, split_names
from xformer.data.sources.text import TextSource
from xformer.errors import DataError

# Importing these emits deprecations that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def source(name, config=None):
    return TextSource(dataset=name, dataset_config=config, files=None, column="text", joined=False, streaming=False)


def load(name, config=None):
    return load_dataset_splits(source(name, config), {}, offline="data=digits")


def test_a_dataset_without_training_split_is_refused(tmp_path):
    from datasets import Dataset, DatasetDict

    path = str(tmp_path / "saved")
    DatasetDict(test=Dataset.from_dict({"text": ["one"]})).save_to_disk(path)
    with pytest.raises(DataError, match="has no split train, only test"):
        load(path)


def test_a_directory_that_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data\.source\.dataset=.*empty cannot be read as a dataset"):
        load(str(tmp_path / "empty"))


def test_without_a_network_a_hub_name_fails_at_once_and_says_what_runs(no_network):
    import datasets.config
    import huggingface_hub.constants

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load("nobody/no-such-dataset", "raw")
    assert time.monotonic() - start < 5
    message = str(caught.value)
    for part in (
        "data.source.dataset=nobody/no-such-dataset",
        "data.source.dataset_config=raw",
        "HF_HUB_OFFLINE",
        "HF_HOME",
    ):
        assert part in message
    assert "or use data=digits." in message
    assert "\n" not in message
    assert [name for name, _ in no_network] == ["nobody/no-such-dataset"]
    assert no_network[0][1]["timeout"] <= 10
    after = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    assert after == before


def test_a_name_the_hub_refuses_is_said_to_be_wrong(monkeypatch):
    import datasets
    import huggingface_hub

    def fail(name, config, **options):
        raise FileNotFoundError("Dataset 'nobody/x' doesn't exist on the Hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, **options: None)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"data\.source\.dataset=nobody/x .*doesn't exist on the Hub.*correct the name"):
        load("nobody/x")


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"a": ["one"], "b": ["two"]}).save_to_disk(str(tmp_path / "here"))
    here = source(str(tmp_path / "here"))
    assert list(load_dataset_splits(here, {"column": "b"}, offline="")) == ["train"]
    with pytest.raises(DataError, match=r"data\.source\.label_column=c is not in .*here: its columns are a, b\."):
        load_dataset_splits(here, {"column": "b", "label_column": "c"}, offline="")


def test_a_split_has_one_of_several_names():
    assert split_names(["dev", "train", "test", "extra"]) == {"train": "train", "val": "dev", "test": "test"}
    assert split_names(["dev", "validation"]) == {"val": "validation"}
