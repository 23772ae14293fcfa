"""The launch scripts, with stand-ins for the commands that they call."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile

import jax
import pytest

from tests.helpers.paths import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = {
    "local.sh": ["configs/digits.py", "runs/x"],
    "gpu.sh": ["configs/ffhq.py", "runs/x"],
    "slurm.sh": ["4", "8", "configs/ffhq.py", "runs/x"],
    "tpu_pod.sh": ["pod", "us-east1-c", "v5litepod-16", "configs/ffhq.py", "gs://b/runs/x"],
}
JOB = {"DBAE_JAX_JOB": "1", "SLURM_JOB_ID": "77"}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in(name, *codes) puts a command in PATH that logs its calls and exits with codes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PAUSE", "0")
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(name, *codes):
        calls, count = tmp_path / f"{name}.calls", tmp_path / f"{name}.count"
        path = folder / name
        path.write_text(
            f'#!/bin/bash\necho "$*" >> {calls}\necho . >> {count}\n'
            f"codes=({' '.join(map(str, codes))})\n"
            f'n=$(wc -l < {count})\nexit "${{codes[$((n - 1))]:-0}}"\n'
        )
        path.chmod(0o755)
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return make


def _run(script, *arguments, cwd=None, **environment):
    return subprocess.run(
        [LAUNCH / script, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_shellcheck_finds_nothing():
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("shellcheck"), *LAUNCH.glob("*.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_too_few_arguments_get_the_usage(script):
    done = _run(script, *SCRIPTS[script][:-1])
    assert done.returncode == 2 and done.stderr.startswith(f"usage: launch/{script} ")


@pytest.mark.parametrize("script", ["local.sh", "gpu.sh"])
def test_one_machine_starts_again_after_a_preemption_and_stops_after_a_mistake(script, stand_in):
    calls = stand_in("trainer", 75, 137, 2, 0)
    done = _run(script, *SCRIPTS[script], "--config.seed=1", PYTHON="trainer")
    assert done.returncode == 2
    assert len(calls()) == 3 and len(set(calls())) == 1
    assert re.search(r"-m dbae_jax.main --config=\S*configs/\w+.py --workdir=/", calls()[0])
    assert calls()[0].endswith(" --config.seed=1")
    assert ("--config.model.dtype=bfloat16" in calls()[0]) == (script == "gpu.sh")


@pytest.mark.parametrize("script", ["gpu.sh", "slurm.sh"])
def test_scripts_for_gpus_add_their_flags_of_xla_before_those_of_the_user(script, stand_in):
    calls = stand_in("env_of" if script == "gpu.sh" else "srun", 0)
    path = shutil.which("env_of" if script == "gpu.sh" else "srun")
    pathlib.Path(path).write_text(
        pathlib.Path(path).read_text().replace('echo "$*"', 'echo "$XLA_FLAGS"')
    )
    job = JOB if script == "slurm.sh" else {}
    _run(script, *SCRIPTS[script], PYTHON="env_of", XLA_FLAGS="--xla_mine=1", **job)
    (given,) = calls()
    assert given.startswith("--xla_gpu_") and given.endswith(" --xla_mine=1")
    options = dict(flag.removeprefix("--").split("=") for flag in given.split()[:-1])
    values = {name: value == "true" or int(value) for name, value in options.items()}
    assert jax.jit(lambda x: x + 1, compiler_options=values)(1) == 2  # XLA knows all of them


def test_restarts_are_bounded(stand_in):
    calls = stand_in("trainer", 75, 75, 75, 75)
    done = _run("local.sh", *SCRIPTS["local.sh"], PYTHON="trainer", RETRIES="2")
    assert done.returncode == 75 and len(calls()) == 3 and "Giving up" in done.stderr


@pytest.fixture
def trapping(tmp_path, stand_in):
    """trapping(name) puts a command in PATH that records a TERM in a file and exits with 75."""
    del stand_in  # only for the folder it makes and puts in PATH

    def make(name):
        noted = tmp_path / f"{name}.noted"
        path = tmp_path / "bin" / name
        path.write_text(
            "#!/bin/bash\n"
            f"trap 'echo saved >> {noted}; exit 75' TERM\n"
            f"echo $$ > {tmp_path}/{name}.pid\n"
            f"echo started >> {noted}\n"
            "for ((i = 0; i < 500; i++)); do sleep 0.01; done\n"
        )
        path.chmod(0o755)
        return noted

    return make


def _run_and_signal(script, arguments, noted, number, **environment):
    """Runs a script, signals it once its command runs; returns its exit code and its stderr."""
    with subprocess.Popen(
        [LAUNCH / script, *arguments],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that were started in the background ignore SIGINT, and a shell could not trap it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as launcher:
        while not (noted.exists() and noted.read_text()) and launcher.poll() is None:
            pass
        launcher.send_signal(number)
        said = launcher.communicate(timeout=60)[1]
        return launcher.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", ["local.sh", "gpu.sh"])
def test_a_signal_to_the_launcher_reaches_the_trainer_and_ends_the_run(script, number, trapping):
    noted = trapping("trainer")
    code, said = _run_and_signal(script, SCRIPTS[script], noted, number, PYTHON="trainer")
    assert (code, noted.read_text().split()) == (75, ["started", "saved"]), said


def test_slurm_submits_itself_with_a_warning_signal(stand_in):
    calls = stand_in("sbatch")
    assert _run("slurm.sh", *SCRIPTS["slurm.sh"], "--config.seed=1").returncode == 0
    (call,) = calls()
    assert "--nodes=4 --gpus-per-node=8 --ntasks-per-node=1" in call
    assert "--requeue --signal=B:TERM@120" in call
    assert "launch/slurm.sh 4 8 " in call and call.endswith("runs/x --config.seed=1")


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (75, True), (76, True)])
def test_a_slurm_job_queues_again_when_it_was_stopped(stand_in, code, requeued):
    steps, control = stand_in("srun", code), stand_in("scontrol")
    done = _run("slurm.sh", *SCRIPTS["slurm.sh"], "--config.seed=1", **JOB)
    assert done.returncode == code
    assert "-m dbae_jax.main --config=configs/ffhq.py --workdir=runs/x" in steps()[0]
    assert steps()[0].endswith(" --config.seed=1")
    assert control() == (["requeue 77"] if requeued else [])


@pytest.mark.parametrize(("restarts", "requeued"), [("1", True), ("2", False)])
def test_the_queueings_of_a_slurm_job_are_bounded(stand_in, restarts, requeued):
    stand_in("srun", 75)
    control = stand_in("scontrol")
    given = {"RETRIES": "2", "SLURM_RESTART_COUNT": restarts}
    done = _run("slurm.sh", *SCRIPTS["slurm.sh"], **JOB, **given)
    assert done.returncode == 75 and len(control()) == requeued
    assert ("Giving up after 2 restarts" in done.stderr) != requeued


@pytest.mark.parametrize(("gpus", "devices"), [("8", "0,1,2,3,4,5,6,7"), ("1", "0")])
def test_a_slurm_process_has_all_gpus_of_its_node(stand_in, tmp_path, gpus, devices):
    stand_in("srun")
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\necho "$JAX_LOCAL_DEVICE_IDS"\n')
    assert _run("slurm.sh", "4", gpus, *SCRIPTS["slurm.sh"][2:], **JOB).stdout == f"{devices}\n"


def test_a_slurm_job_sends_a_signal_to_its_processes_waits_and_queues_again(
    stand_in, trapping, tmp_path
):
    noted, control = trapping("srun"), stand_in("scontrol")
    stand_in("scancel")
    (tmp_path / "bin" / "scancel").write_text(
        f'#!/bin/bash\necho "$*" >> {tmp_path}/scancel.calls\n'
        f"kill -TERM $(cat {tmp_path}/srun.pid)\n"
    )
    code, said = _run_and_signal("slurm.sh", SCRIPTS["slurm.sh"], noted, signal.SIGTERM, **JOB)
    assert (code, noted.read_text().split()) == (75, ["started", "saved"]), said
    # A TERM sent to srun itself would be a SIGKILL to the processes.
    assert (tmp_path / "scancel.calls").read_text() == "--signal=TERM 77\n"
    assert control() == ["requeue 77"]


@pytest.mark.parametrize("script", ["local.sh", "gpu.sh", "slurm.sh"])
def test_relative_paths_are_those_of_the_caller(stand_in, tmp_path, script):
    calls = stand_in("sbatch" if script == "slurm.sh" else "trainer")
    (tmp_path / "my stand" / "mine").mkdir(parents=True)
    (tmp_path / "my stand" / "mine" / "c.py").touch()
    first = SCRIPTS[script][:-2]
    here = tmp_path / "my stand"
    given = {"cwd": here, "PYTHON": "trainer"}
    assert _run(script, *first, "mine/c.py:small", "runs/x", **given).returncode == 0
    assert _run(script, *first, "configs/digits.py", "/runs/x", **given).returncode == 0
    assert f"{here}/mine/c.py:small" in calls()[0] and f"{here}/runs/x" in calls()[0]
    assert "=configs/digits.py" in calls()[1].replace(" ", "=")  # of the repository
    assert "=/runs/x" in calls()[1].replace(" ", "=")
    assert _run(script, *first, "configs/digits.py", "gs://bucket/x", **given).returncode == 0
    assert "=gs://bucket/x" in calls()[2].replace(" ", "=")


@pytest.fixture
def pod(tmp_path, stand_in, monkeypatch):
    """pod(verbs={verb: [answers]}) runs tpu_pod.sh in a small repository.

    An answer is the output of gcloud for one call of the verb, or its exit code; the last answer
    is repeated. Returns the finished process and the calls of gcloud.
    """
    repository = tmp_path / "repository"
    shutil.copytree(LAUNCH, repository / "launch")
    (repository / ".gitignore").write_text("ignored\n")
    (repository / "ignored").touch()
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    subprocess.run(["git", "add", "launch", ".gitignore"], cwd=repository, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, "commit", "-qm", "first"], cwd=repository, check=True)
    (repository / "new file.py").touch()  # not committed
    monkeypatch.setattr(sys.modules[__name__], "LAUNCH", repository / "launch")
    calls = stand_in("gcloud")
    answers = tmp_path / "answers"
    answers.mkdir()
    (tmp_path / "bin" / "gcloud").write_text(
        f"#!/bin/bash\necho ${{*//[[:space:]]/ }} >> {tmp_path}/gcloud.calls\ncd {answers}\n"
        '[ "$4" != scp ] || cp "$5" sent.tar.gz\n'
        'answer=$(head -n1 "$4" 2>/dev/null)\n'
        '[ "$(wc -l 2>/dev/null < "$4")" = 1 ] || sed -i 1d "$4" 2>/dev/null\n'
        'case $answer in\n  [0-9]*) echo "${answer#* }" >&2; exit "${answer%% *}" ;;\nesac\n'
        'echo "$answer"\n'
    )

    def run(*flags, verbs, **environment):
        for verb, said in verbs.items():
            (answers / verb).write_text("".join(f"{line}\n" for line in said))
        done = _run("tpu_pod.sh", *SCRIPTS["tpu_pod.sh"], *flags, TMPDIR=tmp_path, **environment)
        return done, [call.removeprefix("compute tpus tpu-vm ") for call in calls()]

    return run


NOWHERE = "1 ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found."


def _verbs(calls):
    return " ".join(call.split()[0] for call in calls)


def test_a_pod_is_created_and_trains_on_all_workers(pod):
    verbs = {"describe": [NOWHERE, "READY"]}
    done, calls = pod("--config.seed=1", verbs=verbs, CREATE_FLAGS="--spot")
    assert done.returncode == 0, done.stderr
    assert _verbs(calls) == "describe create describe scp ssh", calls
    create, copy, ssh = calls[1], *calls[3:]
    assert "--accelerator-type=v5litepod-16" in create and "--spot" in create
    assert "--worker=all" in copy and "--worker=all" in ssh
    assert "--config=configs/ffhq.py --workdir=gs://b/runs/x" in ssh and "--config.seed=1" in ssh
    assert "'.[tpu,cloud]'" in ssh


@pytest.mark.parametrize("lost", [["PREEMPTED", NOWHERE], ["DELETING", NOWHERE], ["TERMINATED"]])
def test_a_preempted_pod_is_created_again(pod, lost):
    verbs = {"describe": ["READY", *lost, "READY"], "ssh": ["255 lost", ""]}
    done, calls = pod(verbs=verbs)
    assert done.returncode == 0, done.stderr
    kept = [verb for verb in _verbs(calls).split() if verb != "describe"]
    taken = ["delete"] * (lost[0] != "DELETING") + ["create"] * (NOWHERE in lost)
    assert kept == ["scp", "ssh", *taken, "scp", "ssh"]


def test_a_pod_gets_this_folder_as_it_is_now(pod, tmp_path):
    pod(verbs={"describe": ["READY"]})
    with tarfile.open(tmp_path / "answers" / "sent.tar.gz") as sent:
        names = sent.getnames()
    assert {"new file.py", "launch/tpu_pod.sh"} <= set(names) and "ignored" not in names
    assert not list(tmp_path.glob("tmp.*"))


def test_a_failure_of_git_ends_the_script(pod, stand_in):
    stand_in("git", 128)
    done, calls = pod(verbs={"describe": ["READY"]})
    assert done.returncode == 128 and calls == []


def test_a_pod_runs_nothing_until_it_has_the_files(pod):
    done, calls = pod(verbs={"describe": ["READY"], "scp": ["1 cut off", "1 cut off", ""]})
    assert done.returncode == 0, done.stderr
    assert _verbs(calls) == "describe scp describe scp describe scp ssh"


@pytest.mark.parametrize(("verb", "now"), [("create", NOWHERE), ("scp", "READY")])
def test_the_script_gives_up_after_five_failures_in_a_row(pod, verb, now):
    done, calls = pod(verbs={"describe": [now], verb: ["1 no capacity"]})
    assert done.returncode == 75 and _verbs(calls).split()[1::2] == [verb] * 5
    assert "failed 5 times in a row" in done.stderr


def test_the_script_waits_for_a_pod_that_is_being_created(pod):
    done, calls = pod(verbs={"describe": ["CREATING", "RESTARTING", "READY"]})
    assert done.returncode == 0, done.stderr
    assert _verbs(calls) == "describe describe describe scp ssh"


@pytest.mark.parametrize(
    ("now", "said"), [("1 PERMISSION_DENIED: who are you?", "who are you?"), ("STOPPED", "STOPPED")]
)
def test_an_unknown_state_of_a_pod_ends_the_script(pod, now, said):
    done, calls = pod(verbs={"describe": [now]})
    assert done.returncode == 1 and said in done.stderr and _verbs(calls) == "describe"


def test_the_restarts_of_a_pod_are_bounded(pod):
    done, calls = pod(verbs={"describe": ["READY"], "ssh": ["255 lost"]}, RETRIES="1")
    assert done.returncode == 255 and _verbs(calls) == "describe scp ssh describe scp ssh"
    assert "the training was lost 2 times" in done.stderr


def test_a_mistake_on_a_pod_ends_the_script(pod):
    done, calls = pod(verbs={"describe": ["READY"], "ssh": ["2 a wrong config"]})
    assert done.returncode == 2 and _verbs(calls) == "describe scp ssh"
