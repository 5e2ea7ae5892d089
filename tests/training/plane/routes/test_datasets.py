"""Datasets over HTTP on both databases and both object stores: upload, checks, tokens, downloads, faults."""

import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import update

from benchmarks.training.planes import PlaneProcess, ask, texts
from tests.eventually import eventually
from training.plane import token
from training.plane.database import Database
from training.plane.schema import tokens

MB = 1 << 20


def declared(content: bytes, **changes: object) -> dict[str, object]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": "rows.csv", "kind": "texts", "bytes": len(content), "sha256": sha256, **changes}


def declare(plane: PlaneProcess, content: bytes, **changes: object) -> dict:
    answer = plane.ask("POST", "/datasets", declared(content, **changes))
    assert answer.status == 201, answer.content
    return answer.json


def put(signed: dict, content: bytes) -> int:
    return ask(signed["method"], signed["url"], content, signed["headers"]).status


def new_token(plane: PlaneProcess, dataset: str) -> str:
    answer = plane.ask("POST", f"/datasets/{dataset}/tokens")
    assert answer.status == 201, answer.content
    return answer.json["token"]


def download(plane: PlaneProcess, secret: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, bytes and headers; a redirect to the bucket is followed by hand."""
    answer = ask("GET", f"{plane.url}/api/training/download/{secret}", None, headers)
    if answer.status == 303:
        answer = ask("GET", answer.headers["Location"], None, headers)
    return answer.status, answer.content, answer.headers


def test_an_uploaded_dataset_is_checked_and_listed(plane: PlaneProcess) -> None:
    content = texts()
    made = plane.dataset(content)
    found = plane.client().json("GET", f"/datasets/{made}")
    assert (found["state"], found["rows"], found["bytes"]) == ("ready", 40, len(content))
    assert found["report"]["labels"] == {"0": 20, "2": 20}
    assert made in [one["id"] for one in plane.client().json("GET", "/datasets")["datasets"]]
    assert made not in [one["id"] for one in plane.client("other").json("GET", "/datasets")["datasets"]]
    assert plane.ask("GET", f"/datasets/{made}", owner="other").status == 404


def test_two_uploads_of_one_dataset_are_two_datasets(plane: PlaneProcess) -> None:
    content = texts()
    assert plane.dataset(content) != plane.dataset(content)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bytes": 0}, "bytes"),
        ({"sha256": "zz"}, "sha256"),
        ({"kind": "images"}, "kind"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_declaration_names_the_field(plane: PlaneProcess, change: dict[str, object], field: str) -> None:
    answer = plane.ask("POST", "/datasets", declared(b"x", **change))
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [one["field"] for one in answer.json["errors"]] == [field]
    assert answer.json["request_id"] == answer.headers["x-request-id"]


def test_a_byte_over_twenty_gigabytes_is_refused_with_the_limit(plane: PlaneProcess) -> None:
    answer = plane.ask("POST", "/datasets", declared(b"x", bytes=20_000_000_001))
    assert answer.status == 413
    assert answer.json["errors"] == [
        {"field": "bytes", "description": "at most 20000000000 bytes, got 20000000001", "limit": 20_000_000_000}
    ]


@pytest.mark.parametrize("extra", [b"x", b""])
def test_the_size_is_bound_by_the_signature(plane: PlaneProcess, extra: bytes) -> None:
    content = texts()
    made = declare(plane, content)
    assert put(made["upload"], content + extra if extra else content[:-1]) in {400, 403, 413, 422}
    assert plane.ask("POST", f"/datasets/{made['id']}/complete", {}).status == 409


def test_an_object_is_written_once(plane: PlaneProcess) -> None:
    content = texts()
    made = declare(plane, content)
    assert put(made["upload"], content) == 200
    assert put(made["upload"], bytes(reversed(content))) in {409, 412}


def test_an_address_that_was_changed_is_refused(plane: PlaneProcess) -> None:
    content = texts()
    made = declare(plane, content)
    other = declare(plane, content)
    moved = {**made["upload"], "url": made["upload"]["url"].replace(made["id"], other["id"])}
    assert put(moved, content) == 403
    for forged in ("%C3%A9", "%FF", "%00", ""):
        url = re.sub("(?<=[Ss]ignature=)[0-9a-f]+", forged, made["upload"]["url"])
        assert put({**made["upload"], "url": url}, content) in {400, 403}


def test_other_bytes_than_declared_are_refused_by_the_checks(plane: PlaneProcess) -> None:
    content = texts()
    made = declare(plane, content, sha256="0" * 64)
    assert put(made["upload"], content) == 200
    assert plane.ask("POST", f"/datasets/{made['id']}/complete", {}).status == 200
    assert "SHA-256" in plane.wait(f"/datasets/{made['id']}", "refused")["reason"]


def test_completing_twice_checks_once(plane: PlaneProcess) -> None:
    content = texts()
    made = declare(plane, content)
    put(made["upload"], content)
    for _ in range(2):
        assert plane.ask("POST", f"/datasets/{made['id']}/complete", {}).status == 200
    plane.wait(f"/datasets/{made['id']}", "ready")


def parts_of(plane: PlaneProcess, content: bytes) -> tuple[str, list[bytes], list[dict]]:
    made = declare(plane, content)
    assert made["parts"] == {"count": 2, "bytes": 5 * MB}
    pieces = [content[: 5 * MB], content[5 * MB :]]
    signed = [plane.ask("POST", f"/datasets/{made['id']}/parts/{n}").json for n in (1, 2)]
    return made["id"], pieces, signed


def large() -> bytes:
    """7 MB in few rows, so that the checks take no time."""
    rows = [f"{n} {'profit rose ' * 750},{n % 2}" for n in range(800)]
    return ("text,label\n" + "\n".join(rows) + "\n").encode()


def test_a_large_dataset_comes_in_parts(plane: PlaneProcess) -> None:
    content = large()
    made, pieces, signed = parts_of(plane, content)
    etags = []
    for one, piece in zip(signed, pieces, strict=True):
        answer = ask("PUT", one["url"], piece, one["headers"])
        assert answer.status == 200
        etags.append(answer.headers["ETag"])
    assert plane.ask("POST", f"/datasets/{made}/complete", {"etags": list(reversed(etags))}).status == 409
    assert plane.ask("POST", f"/datasets/{made}/complete", {"etags": [etags[0], etags[0]]}).status == 409
    assert plane.ask("POST", f"/datasets/{made}/complete", {"etags": etags[:1]}).status == 409
    assert plane.ask("POST", f"/datasets/{made}/complete", {"etags": etags}).status == 200
    assert plane.wait(f"/datasets/{made}", "ready", "refused")["state"] == "ready"


def test_a_truncated_part_is_refused(plane: PlaneProcess) -> None:
    made, pieces, signed = parts_of(plane, large())
    assert put(signed[1], pieces[1][:-1]) in {400, 403, 422}
    assert plane.ask("POST", f"/datasets/{made}/parts/3").status == 409


def test_a_token_is_good_once_and_its_text_is_one(plane: PlaneProcess) -> None:
    content = texts()
    secret = new_token(plane, plane.dataset(content))
    status, got, headers = download(plane, secret)
    assert (status, got) == (200, content)
    assert headers["Accept-Ranges"].lower() == "bytes"
    used, wrong = (ask("GET", f"{plane.url}/api/training/download/{one}") for one in (secret, "A" * 43))
    assert (used.status, wrong.status) == (401, 401)
    assert {**used.json, "request_id": ""} == {**wrong.json, "request_id": ""}


@pytest.mark.parametrize("wanted", ["bytes=1000000-", f"bytes={'9' * 19}-"])
def test_a_range_that_is_refused_uses_no_token_up(plane: PlaneProcess, wanted: str) -> None:
    content = texts()
    secret = new_token(plane, plane.dataset(content))
    address = f"{plane.url}/api/training/download/{secret}"
    refused = ask("GET", address, None, {"Range": wanted})
    assert refused.status == 416
    got = ask("GET", address, None, {"Range": f"bytes={'9' * 5000}-"})
    assert got.status == 303 or got.content == content  # S3 has an address of its own


def test_of_two_pods_with_one_token_one_gets_the_data(plane: PlaneProcess) -> None:
    dataset = plane.dataset()
    for _ in range(5):
        secret, answers, barrier = new_token(plane, dataset), [], threading.Barrier(4)

        def get(secret: str = secret, answers: list = answers, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(60)
            answers.append(ask("GET", f"{plane.url}/api/training/download/{secret}").status)

        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(answers)[1:] == [401, 401, 401]
        assert sorted(answers)[0] in {200, 303}


def test_a_revoked_token_and_one_of_a_deleted_dataset_are_refused(plane: PlaneProcess) -> None:
    dataset = plane.dataset()
    first, second = new_token(plane, dataset), new_token(plane, dataset)
    assert plane.ask("DELETE", f"/datasets/{dataset}/tokens", owner="other").status == 404
    assert plane.ask("DELETE", f"/datasets/{dataset}/tokens").json == {"revoked": 2}
    assert download(plane, first)[0] == 401
    third = new_token(plane, dataset)
    assert plane.ask("DELETE", f"/datasets/{dataset}").status == 204
    assert [download(plane, one)[0] for one in (second, third)] == [401, 401]
    assert plane.ask("POST", f"/datasets/{dataset}/tokens").status == 409


def test_a_download_that_broke_off_goes_on_with_a_fresh_token(plane: PlaneProcess) -> None:
    content = texts()
    dataset = plane.dataset(content)
    status, rest, headers = download(plane, new_token(plane, dataset), Range="bytes=100-")
    assert (status, rest) == (206, content[100:])
    assert headers["Content-Range"] == f"bytes 100-{len(content) - 1}/{len(content)}"


def test_tokens_are_in_no_log(plane: PlaneProcess) -> None:
    secret = new_token(plane, plane.dataset())
    download(plane, secret)
    for part in (secret, plane.keys["desk"], plane.keys["desk"][:20]):
        for path in (f"/nothere/{part}", f"/jobs/{part}", f"/jobs/{part}/nothere", f"/models/{part}/versions"):
            assert plane.ask("GET", path).status in {404, 422}
    assert plane.ask("GET", "/nothere/last").status == 404
    log = eventually(plane.log.read_text, lambda text: "/nothere/last" in text)
    assert "/download/-" in log
    assert log.count("/nothere/-") == log.count("/jobs/-/nothere") == 3
    assert secret not in log
    assert not [key for key in plane.keys.values() if key[:20] in log]


def test_there_is_no_listing_and_no_path(plane: PlaneProcess) -> None:
    for path in ("/objects/", "/objects/datasets", "/objects/../store.db", "/objects/%2e%2e/store.db",
                 "/api/training/download/", "/api/training/download/..%2f..%2fstore.db"):  # fmt: skip
        assert ask("GET", plane.url + path).status in {401, 403, 404, 405}


@pytest.mark.parametrize(("size", "hours"), [(5_000_000_000, 2), (5_000_000_001, 6)])
def test_the_lifetime_depends_on_the_size(size: int, hours: int) -> None:
    assert token.lifetime(size) == hours * 3600


def test_expired_is_refused_before_use(store: Database) -> None:
    with store.begin() as connection:
        secret = token.issue(connection, token.DOWNLOAD, "desk", 0.0, 10.0, dataset="D")
        assert token.peek(connection, secret, 9.9) == "D"
    for at in (10.0, 11.0):
        with pytest.raises(token.TokenRefusedError), store.begin() as connection:
            token.consume(connection, secret, at)
    with store.begin() as connection:
        row = connection.execute(tokens.select()).mappings().one()
        assert row["digest"] == hashlib.sha256(secret.encode()).hexdigest()
        assert secret not in str(dict(row))
        connection.execute(update(tokens).values(expires_at=20.0))
        assert token.consume(connection, secret, 11.0) == "D"


def test_datasets_that_are_deleted_at_once_have_a_bounded_number(tmp_path: Path) -> None:
    with PlaneProcess(tmp_path, MAX_DATASETS_PER_OWNER=1) as plane:
        for _ in range(10):
            made = declare(plane, b"abc")["id"]
            assert plane.ask("DELETE", f"/datasets/{made}").status == 204
        refused = plane.ask("POST", "/datasets", declared(b"abc"))
        assert (refused.status, refused.json["reason"], refused.headers["Retry-After"]) == (429, "OVERLOADED", "3600")
        assert refused.json["detail"] == "at most 10 datasets within a day, with deleted ones"


def test_the_bytes_of_an_owner_are_counted_before_an_upload(tmp_path: Path) -> None:
    """One owner filled the disk with the datasets that an owner may have, 20 GB each."""
    with PlaneProcess(tmp_path, MAX_DATASET_BYTES_PER_OWNER=10) as plane:
        first = declare(plane, b"123456")["id"]
        refused = plane.ask("POST", "/datasets", declared(b"12345"))
        assert (refused.status, refused.json["reason"]) == (409, "LIMIT_REACHED")
        assert refused.json["detail"] == "bytes: at most 10 bytes of one owner's datasets; 6 are declared: delete one"
        assert (refused.json["errors"][0]["field"], refused.json["errors"][0]["limit"]) == ("bytes", 10)
        assert plane.ask("POST", "/datasets", declared(b"12345"), owner="other").status == 201
        declare(plane, b"1234")
        assert plane.ask("DELETE", f"/datasets/{first}").status == 204
        declare(plane, b"123456")


def test_the_address_of_a_deleted_dataset_takes_no_bytes(plane: PlaneProcess) -> None:
    """The bytes came after the deletion, counted for no owner, and stayed for six hours."""
    made = declare(plane, b"abc")
    assert plane.ask("DELETE", f"/datasets/{made['id']}").status == 204
    assert put(made["upload"], b"abc") in {409, 412}
    whole = declare(plane, content := texts())
    assert put(whole["upload"], content) == 200
    for _ in range(2):
        assert plane.ask("DELETE", f"/datasets/{whole['id']}").status == 204
        assert put(whole["upload"], content) in {409, 412}


def test_download_tokens_of_a_dataset_are_counted(tmp_path: Path) -> None:
    few = "from training.plane import token\ntoken.MOST_OF_DATASET, token.MOST_DOWNLOADS = 2, 5"
    with PlaneProcess(tmp_path, first=few) as plane:
        dataset = plane.dataset()
        for _ in range(2):
            new_token(plane, dataset)
        assert plane.ask("DELETE", f"/datasets/{dataset}/tokens").json == {"revoked": 2}
        refused = plane.ask("POST", f"/datasets/{dataset}/tokens")
        assert (refused.status, refused.json["reason"], refused.json["errors"][0]["limit"]) == (429, "OVERLOADED", 2)
        assert plane.finished(plane.job("succeed", dataset))["state"] == "succeeded"  # machines have their own number
