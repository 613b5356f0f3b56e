# SPDX-License-Identifier: Apache-2.0
"""A request is made anew of what is declared; everything else is refused by its name."""

import os

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.fields import (
    batch_fields,
    client,
    flag_text,
    inference_fields,
    models,
    new_name,
    rebuilt,
    scoring_fields,
    segments,
    training_fields,
)

#: What a training of ours declares.
TRAINING = {
    "device": ["cpu"],
    "pretrained": True,
    "max_epochs": 50,
    "val_split": 0.2,
    "multi_gpu": True,
    "gpus": "all",
    "model_filename": ["model.pt", "replaced/model-1.pt"],
}
#: What a bundle of another maker declares beside it, by `displayable_configs`.
FOREIGN = {**TRAINING, "model_filename": ["model.pt"], "spacing": None, "mode": ["mean", "max"], "note": "plain"}
INFERENCE = {"model_filename": ["model.pt"], "note": "plain", "level": 0.5, "window": [96, 96, 64]}


def trained(options, **asked):
    return rebuilt(training_fields(options), asked, "A training")


def inferred(**asked):
    return rebuilt(inference_fields(INFERENCE), asked, "An inference")


@pytest.mark.parametrize("options", [TRAINING, FOREIGN])
def test_a_client_may_send_back_what_a_task_declares(options):
    assert trained(options, **options, client_id="reader") == options
    assert trained(options, **{name: own[0] if isinstance(own, list) else own for name, own in options.items()})


def test_what_a_task_takes_passes():
    assert trained(TRAINING) == {}
    asked = {"max_epochs": 3, "val_split": 0.5, "pretrained": False, "model_filename": "replaced/model-1.pt"}
    assert trained(TRAINING, **asked) == asked
    assert trained(FOREIGN, spacing=2.5, val_split=-1, mode="max") == {"spacing": 2.5, "val_split": -1, "mode": "max"}
    assert trained(TRAINING, device="cuda") == {"device": "cuda"}  # what clients send by default


def test_who_a_client_says_that_it_is():
    """3D Slicer sends a name with each request, or what it has before anybody has set one."""
    fields = {"client_id": client}
    assert rebuilt(fields, {"client_id": "reader"}, "A label") == {"client_id": "reader"}
    for value in (None, True, "", "user-xyz"):
        assert rebuilt(fields, {"client_id": value}, "A label") == {}
    for value in ("two\nlines", "x" * 201, 7, ["reader"]):
        with pytest.raises(PyrasegError, match="client_id is"):
            rebuilt(fields, {"client_id": value}, "A label")


def test_what_3d_slicer_and_ohif_send_passes():
    slicer = {
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "client_id": "user-xyz",
        "model_filename": "model.pt",
    }
    assert inferred(**slicer) == {name: value for name, value in slicer.items() if name != "client_id"}
    ohif = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
    assert inferred(**ohif) == {name: value for name, value in ohif.items() if name != "restore_label_idx"}
    assert segments([{"name": "liver", "idx": 2}, {"name": "spleen", "idx": None, "color": [1, 2, 3]}]) == [
        {"name": "liver", "idx": 2},
        {"name": "spleen", "idx": None},
    ]


def test_clicks_are_for_models_that_work_on_them():
    asked = {"foreground": [[1, 2, 3]], "background": [], "label": "spleen", "spleen": [[4, 5, 6]], "slice": None}
    fields = inference_fields({}, kind="deepedit", labels=["spleen"])
    assert rebuilt(fields, asked, "An inference") == asked
    with pytest.raises(PyrasegError, match="takes no field 'foreground'"):
        rebuilt(inference_fields({}, kind="segmentation", labels=["spleen"]), asked, "An inference")
    for wrong in (
        {"foreground": [["$1 + 1", 2, 3]]},
        {"label": "@device"},
        {"roi": [1, 2]},
        {"foreground": [[-1, 2, 3]]},
        {"foreground": [[1, 2]] * 1001},
        {"foreground": [[1]]},
        {"foreground": [[1, 2, 3, 4]]},
        {"foreground": [[True, 2, 3]]},
        {"foreground": [[float("nan"), 2, 3]]},
        {"foreground": [[float("inf"), 2, 3]]},
        {"foreground": {"0": [1, 2, 3]}},
    ):
        with pytest.raises(PyrasegError, match="Give "):
            rebuilt(fields, wrong, "An inference")
    assert rebuilt(fields, {"foreground": [[1.5, 0, 3]]}, "An inference") == {"foreground": [[1.5, 0, 3]]}


def test_3d_slicer_sends_a_list_for_every_label_of_the_server():
    fields = inference_fields({}, kind="deepedit", labels=["background", "spleen"], others=["spleen", "cavity"])
    asked = {"background": [], "spleen": [[4, 5, 6]], "cavity": [], "label": "spleen"}
    assert rebuilt(fields, asked, "An inference") == {"background": [], "spleen": [[4, 5, 6]], "label": "spleen"}
    with pytest.raises(PyrasegError, match="Give an empty list: the label is of another model"):
        rebuilt(fields, {"cavity": [[4, 5, 6]]}, "An inference")


@pytest.mark.parametrize("options", [TRAINING, FOREIGN])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_epochs", "3", "max_epochs is '3'. Give a whole number from 1 to 1000000."),
        ("max_epochs", True, "max_epochs is True. Give a whole number"),
        ("max_epochs", 2.5, "max_epochs is 2.5. Give a whole number"),
        ("max_epochs", None, "max_epochs is None. Give a whole number"),
        ("max_epochs", 0, "max_epochs is 0. Give a whole number from 1"),
        ("max_epochs", 10**9, "max_epochs is 1000000000. Give a whole number"),
        ("pretrained", "false", "pretrained is 'false'. Give true or false."),
        ("pretrained", 1, "pretrained is 1. Give true or false."),
        ("val_split", [0.2], r"val_split is \[0.2\]. Give a number from -1 to 1."),
        ("val_split", float("nan"), "val_split is nan. Give a number"),
        ("device", 0, "device is 0. Give one of 'cpu', 'cuda'"),
        ("device", "cuda:99", "device is 'cuda:99'. Give one of"),
        ("gpus", "0;1", "gpus is '0;1'. Give 'all'"),
        ("model_filename", "../model.pt", "model_filename is '../model.pt'. Give one of 'model.pt'"),
        ("model_filename", "/model.pt", "model_filename is '/model.pt'. Give one of 'model.pt'"),
        ("model_filename", ["other.pt"], r"model_filename is \['other.pt'\]. Give one of"),
        ("model_filename", {}, "model_filename is {}. Give one of"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(options, name, value, said):
    with pytest.raises(PyrasegError, match=said):
        trained(options, **{name: value})


@pytest.mark.parametrize(
    "value", ["$1 + 1", "@device", "%train.json", "plain\0", ["$1 + 1"], {"a": "@device"}, [["plain"]]]
)
@pytest.mark.parametrize(
    "name", ["note", "mode", "device", "model_filename", "spacing", "pretrained", "gpus", "multi_gpu"]
)
def test_no_text_of_a_client_reaches_a_config(name, value):
    with pytest.raises(PyrasegError, match=f"^{name} is .* Give "):
        trained(FOREIGN, **{name: value})


@pytest.mark.parametrize(
    "name",
    ["run_id", "tracking", "tracking_uri", "bundle_path", "train#trainer", "$x", "device#", "image", "local_rank", ""],
)
@pytest.mark.parametrize("options", [TRAINING, {**FOREIGN, "run_id": "", "tracking": ["None", "mlflow"]}])
def test_an_unknown_field_is_refused_by_name(options, name):
    with pytest.raises(PyrasegError, match=r"^A training takes no field .* It takes device, pretrained, max_epochs"):
        trained(options, **{name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result_extension", "/../../outside.nrrd"),
        ("result_extension", ".py"),
        ("result_extension", ""),
        ("result_dtype", "object"),
        ("label_tag", "../.."),
        ("label_tag", "final\0"),
        ("logging", "$1"),
        ("save_label", "true"),
        ("window", [1, 2]),
        ("level", "0.5"),
        ("client_id", {"a": 1}),
    ],
)
def test_an_inference_takes_declared_choices_alone(name, value):
    with pytest.raises(PyrasegError, match=f"^{name} is .* Give "):
        inferred(**{name: value})


def test_fields_that_say_what_is_read_are_no_fields():
    for name in ("image", "model", "label", "session", "image_path", "description", "skip_writer", "images"):
        for fields in (inference_fields(INFERENCE), batch_fields(INFERENCE), scoring_fields()):
            with pytest.raises(PyrasegError, match="takes no field"):
                rebuilt(fields, {name: "x"}, "An inference")


def test_a_long_value_is_told_in_short():
    with pytest.raises(PyrasegError) as error:
        inferred(**{"x" * 10000: 1})
    with pytest.raises(PyrasegError) as other:
        inferred(note=["y" * 10000] * 100)
    assert len(str(error.value)) < 500 and len(str(other.value)) < 500


@pytest.mark.parametrize("name", ["CT_1", "3: T1 axial (2)", "lésion, été", "a.b", "x" * 200])
def test_names_of_new_images(name):
    assert new_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".a",
        "../a",
        "a/b",
        "/a",
        "a\\b",
        "a\0b",
        "a\nb",
        "$1",
        "@a",
        "%a",
        "a$b",
        "a@b",
        "a#b",
        "x" * 201,
        None,
    ],
)
def test_what_is_no_name_of_an_image_is_refused(name):
    with pytest.raises(PyrasegError, match=r"^image is .* Give a name of letters"):
        rebuilt({"image": new_name}, {"image": name}, "The address")


def test_a_flag_in_an_address_is_a_word():
    assert rebuilt({"all": flag_text}, {"all": "true"}, "The address") == {"all": True}
    with pytest.raises(PyrasegError, match="Give one of 'true', 'false'"):
        rebuilt({"all": flag_text}, {"all": "yes"}, "The address")
    with pytest.raises(PyrasegError, match=r"The address takes no field 'all'\. It takes none\."):
        rebuilt({}, {"all": "true"}, "The address")


@pytest.mark.parametrize(
    "value", ["lesion", {"name": "a"}, [1], [{"name": "a", "idx": -1}], [{"name": "a\n"}], [{"path": "a"}]]
)
def test_segments_are_names_and_values(value):
    with pytest.raises(PyrasegError):
        rebuilt({"label_info": segments}, {"label_info": value}, "A label")


def test_models_are_the_served_one_and_those_before_the_newest_first(tmp_path):
    folder = tmp_path / "models" / "replaced"
    folder.mkdir(parents=True)
    for age, name in enumerate(("model-b.pt", "model-a.pt", "model-c.pt")):
        (folder / name).touch()
        os.utime(folder / name, (1000 - age, 1000 - age))
    assert models(str(tmp_path)) == ["model.pt", "replaced/model-b.pt", "replaced/model-a.pt", "replaced/model-c.pt"]
