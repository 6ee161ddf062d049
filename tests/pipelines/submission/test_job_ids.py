import dataclasses
from types import SimpleNamespace

from ray.job_submission import JobStatus

from dhpf.pipelines.submission.job_ids import next_job, work_id
from dhpf.pipelines.workflow_file import PACKAGED_FILE, load_workflow
from dhpf.storage import location_of


def job(name: str | None, status: JobStatus) -> SimpleNamespace:
    return SimpleNamespace(submission_id=name, status=status)


def test_the_same_work_has_one_id() -> None:
    quickstart = load_workflow(PACKAGED_FILE, "quickstart", [], location_of("data"))
    again = load_workflow(PACKAGED_FILE, "quickstart", [], location_of("elsewhere"))
    longer = load_workflow(PACKAGED_FILE, "quickstart", ["train.epochs=5"], location_of("data"))
    ids = [work_id(w, "q", ["code", None]) for w in (quickstart, again, longer)]
    assert ids[0] == ids[1] != ids[2] and ids[0].startswith("q-")
    assert work_id(quickstart, "q", ["other code", None]) != ids[0]
    assert work_id(dataclasses.replace(quickstart, summary="s"), "q", ["code", None]) != ids[0]


def test_a_job_that_has_not_ended_is_joined() -> None:
    jobs = [job("q-1-0", JobStatus.FAILED), job("q-1-1", JobStatus.PENDING), job(None, JobStatus.RUNNING)]
    assert next_job("q-1", jobs) == ("q-1-1", True)


def test_a_new_job_comes_behind_all_that_ended() -> None:
    assert next_job("q-1", []) == ("q-1-0", False)
    jobs = [job("q-1-10", JobStatus.STOPPED), job("q-1-9", JobStatus.SUCCEEDED), job("q-2-30", JobStatus.RUNNING)]
    assert next_job("q-1", jobs) == ("q-1-11", False), "not one that was forgotten since, and no other work's"
