"""Tensors on a command line."""

import json

import numpy as np
import pytest

from anyserve.cli.values import BadValueError, read_inputs, shown


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a=hello", ["hello"]),
        ("a=", [""]),
        ("a=3", [3]),
        ("a=-0.5", [-0.5]),
        ("a=true", [True]),
        ("a=[1,2]", [1, 2]),
        ('a=["x","y"]', ["x", "y"]),
        ('a="3"', ["3"]),
        ("a=x=y", ["x=y"]),
        ("a=null", ["null"]),
        ('a={"k":1}', ['{"k":1}']),
        ("a=[1,", ["[1,"]),
        ("a:BYTES=3", {"data": ["3"], "shape": [1], "datatype": "BYTES"}),
        ("a:FP32=3", {"data": [3], "shape": [1], "datatype": "FP32"}),
        ("a:INT8=[[1],[2]]", {"data": [[1], [2]], "shape": [2, 1], "datatype": "INT8"}),
    ],
)
def test_a_value_is_json_where_it_reads_as_a_number_or_a_list_and_else_text(argument, expected):
    assert read_inputs([argument]) == {"a": expected}


def test_a_file_gives_an_array_json_or_its_bytes(tmp_path):
    np.save(tmp_path / "x.npy", np.float32([1, 2]))
    (tmp_path / "x.json").write_text("[1, 2]")
    (tmp_path / "x.bin").write_bytes(b"\0\xff")
    read = read_inputs([f"{kind}=@{tmp_path}/x.{kind}" for kind in ("npy", "json", "bin")])
    assert read["npy"].dtype == np.float32
    assert (read["json"], read["bin"]) == ([1, 2], [b"\0\xff"])


def test_a_file_of_pickled_objects_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadValueError, match="cannot read"):
        read_inputs([f"a=@{tmp_path}/x.npy"])


def test_outputs_are_shown_a_line_each_or_as_one_object():
    answer = {"n": np.float32([0.5, 2]), "text": np.array(["é".encode(), b"\xff"], dtype=object)}
    assert shown(answer, as_json=False) == 'n: [0.5, 2.0]\ntext: ["é", "\\\\xff"]'
    assert json.loads(shown(answer, as_json=True)) == {"n": [0.5, 2.0], "text": ["é", "\\xff"]}
