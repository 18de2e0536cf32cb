"""A TPU from its request to its deletion, with a gcloud that can fail."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from tests.support import fake_gcloud as fake
from tests.support import places

ROOT = places.ROOT
sys.path.insert(0, str(ROOT / 'experiments'))

import launch_tpu  # noqa: E402
from cluster import commands, local, source  # noqa: E402

CONFIG = 'experiments/configs/quickstart.py'
BEGIN = ['create', 'describe', 'copy', 'install', 'start', 'follow']

# Stands for `hier-jax`: says where it is, waits for `go`, ends as `code` says.
TRAINER = """#!/bin/bash
exec 2> /dev/null
echo "$@" >> "$FAKE_GCLOUD/started"
trap 'echo saved; exit 0' TERM
echo 'step 1'
while [ ! -e "$FAKE_GCLOUD/go" ]; do sleep .02; done
echo 'step 2: '"$(hostname)"
code=$(cat "$FAKE_GCLOUD/code")
if [ "$code" = 0 ]; then touch "$WORKDIR/results.json"; fi
exit "$code"
"""
PROGRAMS = {
  # A machine that has all it needs but for the package.
  'hostname': 'echo "$FAKE_HOSTNAME"',
  'mountpoint': 'exit "$(cat "$FAKE_GCLOUD/mounted")"',
  'python3': (
    'case "$*" in *"uv pip install"*) test -f setup.cfg || exit 1;'
    ' mkdir -p .venv/bin; cp "$FAKE_GCLOUD/trainer" .venv/bin/hier-jax;; esac'
  ),
  'sudo': 'echo "sudo $*" >> "$FAKE_GCLOUD/mounts"; cat > /dev/null',
  'gcsfuse': 'echo "gcsfuse $*" >> "$FAKE_GCLOUD/mounts"',
  'curl': ':',
  'lsb_release': 'echo jammy',
}


def write_program(path, text):
  path.write_text(text)
  path.chmod(0o755)


class Cloud:
  """A folder with a fake gcloud in it, and a launcher that calls it."""

  def __init__(self, folder, monkeypatch):
    self.folder, self.workdir = folder, folder / 'mount' / 'run'
    self.workdir.mkdir(parents=True)
    self.set(code='0', mounted='0', faults='{}', go='')
    for where in 'bin', 'path':
      (folder / where).mkdir()
    write_program(folder / 'trainer', TRAINER)
    for name, text in PROGRAMS.items():
      write_program(folder / 'bin' / name, f'#!/bin/sh\n{text}\n')
    write_program(
      folder / 'path' / 'gcloud',
      f'#!/bin/sh\nexec {sys.executable} -IS {fake.__file__} "$@"\n',
    )
    environment = {
      'FAKE_GCLOUD': folder,
      'FAKE_WORKERS': 2,
      'WORKDIR': self.workdir,
      'PATH': f'{folder}/path:{os.environ["PATH"]}',
      'XDG_CACHE_HOME': folder / 'cache',
    }
    for name, value in environment.items():
      monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(fake, 'FAKE', folder)
    monkeypatch.setattr(commands, 'MOUNT', str(folder / 'mount'))
    # All the others take a while to pack.
    files = ['setup.cfg', CONFIG]
    monkeypatch.setattr(source, 'tracked_files', lambda: files)
    self.flags = [
      '--zone=us-west4-a',
      '--project=p-1',
      '--bucket=gs://b-1',
      '--spot',
      '--poll_seconds=0',
    ]
    self.arguments = ['--config', CONFIG, f'--workdir={self.workdir}']

  def set(self, **texts):
    for name, text in texts.items():
      name = 'faults.json' if name == 'faults' else name
      (self.folder / name).write_text(text)

  def fail(self, **faults):
    self.set(faults=json.dumps(faults))

  def hold(self):
    """Has trainings wait after their first step."""
    (self.folder / 'go').unlink()

  def argv(self, *flags):
    return [*self.flags, *flags, '--', *self.arguments]

  def launch(self, *flags):
    return launch_tpu.main(self.argv(*flags))

  @contextlib.contextmanager
  def popen(self, *flags):
    """The launcher as a program of its own, with this one's mount."""
    code = (
      f'import sys; sys.path.insert(0, {str(ROOT / "experiments")!r})\n'
      'import launch_tpu; from cluster import commands\n'
      f'commands.MOUNT = {commands.MOUNT!r}\n'
      'sys.exit(launch_tpu.main(sys.argv[1:]))'
    )
    with subprocess.Popen(
      [sys.executable, '-c', code, *self.argv(*flags)],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    ) as process:
      try:
        yield process
      finally:
        # Else one that does not end would never let this go.
        process.kill()

  @property
  def names(self):
    """The calls so far, by name."""
    return [fake.name_of(argv) for argv in fake.calls()]

  @property
  def starts(self):
    """How often a training was started, on all workers together."""
    path = self.folder / 'started'
    return len(path.read_text().splitlines()) if path.exists() else 0

  @property
  def is_there(self):
    """Whether there is a machine that costs money."""
    return (self.folder / 'state').exists()


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  made, handler = Cloud(tmp_path, monkeypatch), signal.getsignal(signal.SIGTERM)
  yield made
  fake.end(signal.SIGKILL)
  # The launcher's own.
  signal.signal(signal.SIGTERM, handler)


def steps(output):
  """What the workers said, sorted."""
  return sorted(line for line in output.splitlines() if line[:1] == '[')


ALL_STEPS = [
  '[0] step 1',
  '[0] step 2: t1v-n-0abc-w-0',
  '[1] step 1',
  '[1] step 2: t1v-n-0abc-w-1',
]


def test_a_run_makes_the_calls_of_its_dry_run(cloud, capsys):
  assert cloud.launch('--dry_run') == 0
  assert not cloud.names
  planned = capsys.readouterr().out.splitlines()
  assert cloud.launch() == 0
  known = [
    [re.sub('w=[0-9a-f]{16}:', 'w=NONCE:', word) for word in call]
    for call in fake.calls()
  ]
  assert [shlex.split(line) for line in planned] == known
  assert cloud.names == [*BEGIN, 'delete']
  assert steps(capsys.readouterr().out) == ALL_STEPS
  assert cloud.starts == 2
  assert not cloud.is_there


@pytest.mark.parametrize(
  'said', ['0:finished:', '0:exit:abc', f'0:{"9" * 5000}:x', 'NONCE:0:exit:1']
)
def test_training_cannot_speak_for_the_launcher(
  cloud, capsys, monkeypatch, said
):
  """Nor can a progress bar, by going back to the beginning of its line."""
  # Two would tear each other's lines, which are longer than a pipe's 4,096.
  monkeypatch.setenv('FAKE_WORKERS', '1')
  lines = f"printf 'bar\\r{said}\\n{said}\\n'"
  write_program(cloud.folder / 'trainer', f'#!/bin/bash\n{lines}\nexit 0\n')
  # It ends well, but says nothing of results: saved and stopped, not finished.
  assert cloud.launch('--max_restarts=0') == 75
  shown = capsys.readouterr().out
  assert f'[0] bar\r{said}\n' in shown
  assert f'[0] {said}\n' in shown


@pytest.mark.parametrize('name', ['../../etc/x', 'Upper', '', 'a' * 64, 'a-'])
def test_a_name_that_is_none_is_refused(cloud, capsys, name):
  assert cloud.launch(f'--name={name}', '--dry_run') == 2
  assert f'--name is {name!r}' in capsys.readouterr().err


def test_a_folder_that_is_no_checkout_is_said(cloud, capsys, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(source, '_ROOT', cloud.folder)
  flags = ['--zone=z', '--bucket=b', '--dry_run', '--', '--config=a.py']
  assert launch_tpu.main([*flags, f'--workdir={commands.MOUNT}/run']) == 2
  assert 'is no checkout that git knows' in capsys.readouterr().err


def test_request_is_exact(cloud):
  cloud.launch('--valid_until_duration=6h', '--name=t', '--dry_run')
  cloud.fail(create=['quota'])
  cloud.launch('--valid_until_duration=6h', '--name=t')
  where = ['--zone=us-west4-a', '--project=p-1', '--quiet']
  assert fake.calls() == [
    [
      'gcloud',
      'compute',
      'tpus',
      'queued-resources',
      'create',
      't',
      '--node-id=t',
      '--accelerator-type=v5litepod-8',
      '--runtime-version=v2-alpha-tpuv5-lite',
      '--spot',
      '--valid-until-duration=6h',
      *where,
    ]
  ]


@pytest.mark.parametrize(
  ('accelerator', 'runtime'),
  [
    ('v2-8', 'tpu-ubuntu2204-base'),
    ('v4-16', 'tpu-ubuntu2204-base'),
    ('v5litepod-256', 'v2-alpha-tpuv5-lite'),
    ('v5p-8', 'v2-alpha-tpuv5'),
    ('v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_the_runtime_is_that_of_the_accelerator(
  cloud, accelerator, runtime, capsys
):
  kind = f'--accelerator_type={accelerator}'
  cloud.launch(kind, '--dry_run')
  create = capsys.readouterr().out.splitlines()[0]
  assert (
    f'--accelerator-type={accelerator} --runtime-version={runtime}' in create
  )
  cloud.launch(kind, '--runtime_version=mine', '--dry_run')
  assert '--runtime-version=mine' in capsys.readouterr().out


@pytest.mark.parametrize('accelerator', ['v5e-8', 'tpu7x-8', 'v9'])
def test_an_unknown_accelerator_is_refused(cloud, accelerator, capsys):
  kind = f'--accelerator_type={accelerator}'
  assert cloud.launch(kind) == 2
  message = f'{kind.replace("=", " is ")}, whose runtime is not known here'
  assert message in capsys.readouterr().err
  assert cloud.launch(kind, '--runtime_version=mine', '--dry_run') == 0


def test_arguments_reach_the_training_as_they_are(cloud):
  odd = """--config.note=a  "b" 'c' $HOME `d` \\ * ; & é"""
  cloud.arguments.append(odd)
  assert cloud.launch() == 0
  expected = f'train {" ".join(cloud.arguments)}'
  assert (cloud.folder / 'started').read_text() == f'{expected}\n' * 2


def test_no_quota_is_said_and_not_tried_again(cloud, capsys):
  cloud.fail(create=['quota'])
  assert cloud.launch() == 2
  assert cloud.names == ['create']
  error = capsys.readouterr().err
  assert fake.QUOTA in error
  assert 'Ask for preemptible TPU quota' in error
  assert '--zone=us-west4-a' in error


def test_a_request_that_fails_later_is_deleted(cloud, capsys):
  cloud.fail(describe=['WAITING_FOR_RESOURCES', 'PROVISIONING', 'FAILED'])
  assert cloud.launch() == 2
  assert cloud.names == ['create', *['describe'] * 3, 'delete']
  assert fake.QUOTA in capsys.readouterr().err
  assert not cloud.is_there


def test_waits_for_the_machine(cloud):
  waiting = ['CREATING', 'ACCEPTED', 'offline', 'WAITING_FOR_RESOURCES']
  cloud.fail(describe=[*waiting, 'PROVISIONING'])
  assert cloud.launch() == 0
  assert cloud.names == ['create', *['describe'] * 6, *BEGIN[2:], 'delete']


def test_another_machine_of_that_name_is_left_alone(cloud, capsys):
  cloud.set(state='ACTIVE')
  assert cloud.launch() == 2
  assert cloud.names == ['create']
  assert cloud.is_there
  assert 'ALREADY_EXISTS' in capsys.readouterr().err


def test_goes_on_with_another_machine_after_a_preemption(cloud):
  cloud.fail(follow=['preempted'])
  assert cloud.launch() == 0
  lost = [*BEGIN, 'describe', 'delete']
  assert cloud.names == [*lost, *BEGIN, 'delete']
  # Both trainings were given the same command.
  calls = fake.calls()
  assert calls[4] == calls[len(lost) + 4]
  assert not cloud.is_there


def test_goes_on_after_a_preemption_before_the_start(cloud):
  # One is lost before it was there, one while it is being prepared.
  cloud.fail(describe=['SUSPENDING'], install=['preempted'])
  assert cloud.launch() == 0
  assert cloud.names == [
    *['create', 'describe', 'delete'],
    *[*BEGIN[:4], 'describe', 'delete'],
    *[*BEGIN, 'delete'],
  ]


def test_gives_up_after_so_many_preemptions(cloud, capsys):
  cloud.fail(follow=['preempted', 'preempted'])
  assert cloud.launch('--max_restarts=1') == 75
  assert cloud.names == [*BEGIN, 'describe', 'delete'] * 2
  error = capsys.readouterr().err
  assert 'hier-jax was taken away (SUSPENDED); restarts left: 1' in error
  assert 'restarts left: 0' in error


def test_a_shutdown_lets_training_save_and_goes_on_elsewhere(cloud, capsys):
  cloud.hold()
  cloud.fail(follow=['shutdown', 'dropped'])
  assert cloud.launch() == 0
  assert cloud.names == [
    *[*BEGIN, 'delete'],
    *[*BEGIN, 'describe', 'follow', 'delete'],
  ]
  printed = capsys.readouterr()
  saved = ['[0] saved', '[1] saved', '[0] step 1', '[1] step 1']
  assert steps(printed.out) == sorted(saved + ALL_STEPS)
  assert 'training saved its state and stopped' in printed.err


def test_attaches_again_when_ssh_drops(cloud, capsys):
  cloud.hold()
  cloud.fail(follow=['dropped', 'unreachable'])
  assert cloud.launch() == 0
  again = ['describe', 'follow']
  assert cloud.names == [*BEGIN, *again, *again, 'delete']
  assert cloud.starts == 2
  # Neither lost nor said twice.
  assert steps(capsys.readouterr().out) == ALL_STEPS


def test_training_is_started_once_where_the_answer_is_lost(cloud):
  cloud.fail(copy=['', ''], install=['dropped'], start=['dropped'])
  assert cloud.launch() == 0
  assert cloud.names == [
    *BEGIN[:4],
    *['describe', 'install', 'start'],
    *['describe', 'start', 'follow', 'delete'],
  ]
  assert cloud.starts == 2


def test_a_machine_out_of_reach_is_deleted(cloud, capsys):
  cloud.fail(start=['unreachable'] * 8)
  assert cloud.launch() == 75
  assert cloud.names == [*BEGIN[:4], *['start', 'describe'] * 8, 'delete']
  assert 'hier-jax cannot be reached' in capsys.readouterr().err


def test_an_error_of_the_user_ends_it_at_once(cloud):
  cloud.set(code='2')
  assert cloud.launch() == 2
  assert cloud.names == [*BEGIN, 'delete']


@pytest.mark.parametrize(
  ('setting', 'code'), [({'code': '1'}, 1), ({'go': None}, 137)]
)
def test_a_crash_ends_it_if_the_machine_is_still_there(cloud, setting, code):
  if 'go' in setting:
    # Killed, its shell as well, as when memory runs out.
    cloud.hold()
    cloud.fail(follow=['killed'])
  else:
    cloud.set(**setting)
  assert cloud.launch() == code
  assert cloud.names == [*BEGIN, *['describe'] * 4, 'delete']


def test_a_crash_before_a_preemption_shows_is_no_end(cloud):
  cloud.set(code='1')
  cloud.fail(describe=['', '', 'SUSPENDING'])
  assert cloud.launch('--max_restarts=0') == 75
  assert cloud.names == [*BEGIN, *['describe'] * 2, 'delete']


def test_a_failed_installation_ends_it(cloud, capsys):
  write_program(cloud.folder / 'bin' / 'python3', '#!/bin/sh\nexit 3\n')
  assert cloud.launch() == commands.FAILED
  assert cloud.names == [*BEGIN[:4], 'delete']
  assert 'a worker failed' in capsys.readouterr().err


def test_deletion_is_tried_again_and_its_failure_said(cloud, capsys):
  cloud.fail(delete=['stuck', 'stuck'])
  assert cloud.launch() == 0
  assert cloud.names[-5:] == ['delete', 'describe'] * 2 + ['delete']
  cloud.fail(delete=[''] * 3 + ['stuck'] * 8)
  assert cloud.launch() == 75
  assert cloud.is_there
  assert (
    'may still cost money: gcloud compute tpus queued-resources delete'
    ' hier-jax --force --zone=us-west4-a --project=p-1 --quiet'
  ) in capsys.readouterr().err


def until(condition):
  for _ in range(1000):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError('waited 10 s for nothing')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_saves_and_the_machine_goes(cloud, number):
  cloud.hold()
  with cloud.popen() as process:
    until(lambda: cloud.starts == 2 and 'follow' in cloud.names)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
  assert process.returncode == 130
  assert cloud.names == [*BEGIN, 'stop', 'delete']
  assert 'interrupted' in output
  assert not cloud.is_there
  assert not list(fake.groups())


def test_interrupted_while_it_waits(cloud):
  cloud.fail(describe=['PROVISIONING'] * 10_000)
  with cloud.popen() as process:
    until(lambda: len(cloud.names) > 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
  assert process.returncode == 130
  assert 'delete' in cloud.names
  assert 'stop' not in cloud.names
  assert not cloud.is_there


def test_interrupted_while_it_requests(cloud):
  cloud.fail(create=['slow'])
  with cloud.popen() as process:
    until(lambda: cloud.is_there)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
  assert process.returncode == 130
  # Cloud had its request, so that there was a machine to delete.
  assert cloud.names == ['create', 'delete']
  assert not cloud.is_there


def test_keep_leaves_training_for_attach(cloud, capsys):
  cloud.hold()
  with cloud.popen('--keep') as process:
    until(lambda: cloud.starts == 2 and 'follow' in cloud.names)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
  assert process.returncode == 130
  assert cloud.names == BEGIN
  assert 'costs money until: gcloud' in output
  (cloud.folder / 'go').touch()
  assert cloud.launch('--attach') == 0
  assert cloud.names == [*BEGIN, 'describe', 'follow', 'delete']
  assert cloud.starts == 2
  assert steps(capsys.readouterr().out) == ALL_STEPS
  assert not cloud.is_there


@pytest.mark.parametrize(
  ('flags', 'mount'),
  [
    (
      [],
      'gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0'
      ' --implicit-dirs --rename-dir-limit=200000 b-1 {}',
    ),
    (['--nfs=10.0.0.2:/share'], 'sudo mount -t nfs -o hard 10.0.0.2:/share {}'),
  ],
)
def test_every_worker_mounts_what_is_shared(cloud, flags, mount):
  cloud.set(mounted='1')
  if flags:
    cloud.flags.remove('--bucket=gs://b-1')
  assert cloud.launch(*flags) == 0
  mounts = (cloud.folder / 'mounts').read_text().splitlines()
  assert mounts.count(mount.format(commands.MOUNT)) == 2


def test_archive_holds_what_git_knows(tmp_path):
  path = tmp_path / 'new' / 'source.tar.gz'
  source.write_archive(path)
  with tarfile.open(path) as archive:
    names = archive.getnames()
  assert names == source.tracked_files()
  assert {'setup.cfg', CONFIG, 'hier_jax/cli/train.py'} <= set(names)
  assert not any('__pycache__' in name for name in names)


def test_config_may_be_a_name(capsys):
  flags = ['--zone=z', '--bucket=b', '--dry_run', '--']
  flags += ['--workdir=/mnt/hier_jax/run', '--config=emoji:vit_tiny']
  assert launch_tpu.main(flags) == 0
  assert '--config=emoji:vit_tiny' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('flags', 'arguments', 'message'),
  [
    ([], [], '--zone is missing'),
    (['--zone=z'], [], '--bucket NAME or --nfs HOST:/PATH is missing'),
    (['--zone=z', '--bucket=b'], [], '--workdir is missing, expected a folder'),
    (
      ['--zone=z', '--bucket=b'],
      ['--workdir', '/mnt/hier_jax/../runs'],
      '--workdir is /mnt/hier_jax/../runs, expected a folder under',
    ),
    (
      ['--zone=z', '--nfs=h:/p'],
      ['--workdir=/mnt/hier_jax/run', '--config=none.py:tiny'],
      '--config is none.py, expected the name of a config such as emoji, or a'
      ' file that git knows',
    ),
    (['--max_restarts=-1', '--zone=z'], [], '--max_restarts is -1'),
    (['--local_processes=0'], [], '--local_processes is 0, expected 1 or more'),
  ],
)
def test_what_cannot_work_is_said(flags, arguments, message, capsys):
  assert launch_tpu.main([*flags, '--', *arguments]) == 2
  assert message in capsys.readouterr().err


def test_one_version_of_cuda_is_named():
  files = [f for f in source.tracked_files() if f.startswith(('README', 'exp'))]
  texts = [(ROOT / f).read_text(errors='replace') for f in files]
  assert {n for t in texts for n in re.findall(r'cuda(\d+)', t)} == {'13'}


def test_gcloud_is_needed(cloud, monkeypatch, capsys):
  monkeypatch.setenv('PATH', str(cloud.folder))
  assert cloud.launch() == 2
  assert 'gcloud is missing' in capsys.readouterr().err


def locally(code, count=3, **options):
  return local.run([sys.executable, '-ISc', code], count, **options)


def test_local_processes_know_of_each_other(capsys):
  names = 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', 'JAX_COORDINATOR_ADDRESS'
  code = f'import os; print(*[os.environ[name] for name in {names}])'
  assert locally(code) == 0
  lines = [
    line.split() for line in sorted(capsys.readouterr().out.splitlines())
  ]
  (address,) = {line[3] for line in lines}
  assert lines == [[f'[{i}]', '3', str(i), address] for i in range(3)]
  host, port = address.split(':')
  assert (host, int(port) > 1023) == ('localhost', True)


@pytest.mark.parametrize(
  ('end', 'code'), [('sys.exit(3)', 3), ('os.kill(os.getpid(), 9)', 137)]
)
def test_a_local_process_that_fails_ends_the_others(end, code, capsys):
  assert code == locally(
    'import os, signal, sys, time\n'
    'def save(*_): print("saved", flush=True); sys.exit()\n'
    'signal.signal(signal.SIGTERM, save)\n'
    'if os.environ["JAX_PROCESS_ID"] == "1":\n'
    f'  time.sleep(.5); {end}\n'
    'time.sleep(100)',
    grace=1,
  )
  assert sorted(capsys.readouterr().out.splitlines()) == [
    '[0] saved',
    '[2] saved',
  ]


def test_local_processes_have_time_to_say_why_they_end(capsys):
  code = 'import os, time; time.sleep(int(os.environ["JAX_PROCESS_ID"]))\n'
  assert locally(f'{code}print("why"); raise SystemExit(2)', 2) == 2
  assert capsys.readouterr().out == '[0] why\n[1] why\n'


def test_a_local_process_that_does_not_end_is_killed():
  began = time.monotonic()
  code = locally(
    'import os, signal, time\n'
    'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    'if os.environ["JAX_PROCESS_ID"] == "0": time.sleep(.5); raise ValueError\n'
    'time.sleep(100)',
    grace=0.5,
  )
  assert code == 1
  assert time.monotonic() - began < 50


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_local_processes_are_sent_the_signal(number):
  child = (
    f'import signal; numbers = {{{int(number)}}}\n'
    'signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n'
    'print("ready", flush=True)\n'
    'signal.sigwait(numbers); print("saved")'
  )
  parent = (
    f'import sys; sys.path.insert(0, {str(ROOT / "experiments")!r})\n'
    'from cluster import local\n'
    f'sys.exit(local.run([sys.executable, "-ISc", {child!r}], 2))'
  )
  with subprocess.Popen(
    [sys.executable, '-IS', '-c', parent], stdout=subprocess.PIPE, text=True
  ) as process:
    ready = [process.stdout.readline() for _ in range(2)]
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0].splitlines()
  assert process.returncode == 0
  assert sorted(ready) == ['[0] ready\n', '[1] ready\n']
  assert sorted(rest) == ['[0] saved', '[1] saved']


def test_local_processes_run_the_train_command(capsys):
  flags = ['--local_processes=2', '--', '--config=none.py', '--workdir=runs/x']
  assert launch_tpu.main(['--dry_run', *flags]) == 0
  expected = [sys.executable, '-m', 'hier_jax', 'train', *flags[2:]]
  assert shlex.split(capsys.readouterr().out) == expected
  # Both say what is wrong, and 2 comes back.
  assert launch_tpu.main(flags) == 2
  lines = sorted(capsys.readouterr().out.splitlines())
  assert [line[:22] for line in lines] == [
    '[0] hier-jax: error: c',
    '[1] hier-jax: error: c',
  ]


def test_slurm_tasks_find_each_other():
  # JAX listens at a port that follows from the number of the job.
  job = os.getpid()
  code = (
    'from hier_jax.training.distributed import processes\n'
    'processes.initialize()\n'
    'import jax; from jax.experimental import multihost_utils\n'
    'print(jax.process_index(), jax.process_count(),'
    ' multihost_utils.process_allgather(jax.process_index()).tolist())'
  )
  slurm = {
    'SLURM_JOB_ID': job,
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': 2,
  }
  tasks = []
  for i in range(2):
    task = {'SLURM_PROCID': i, 'SLURM_LOCALID': 0, 'JAX_PLATFORMS': 'cpu'}
    environment = {name: str(value) for name, value in (slurm | task).items()}
    tasks.append(
      subprocess.Popen(
        [sys.executable, '-c', code],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  for i, task in enumerate(tasks):
    output, error = task.communicate(timeout=120)
    assert task.returncode == 0, error
    assert output.splitlines()[-1] == f'{i} 2 [0, 1]'


def run_script(argv, folder, train, **environment):
  """Runs a script that trains by a `hier-jax` which does `train`."""
  path = folder / 'bin'
  path.mkdir()
  programs = {
    'hier-jax': train,
    'srun': 'echo "srun $*"; shift 2; "$@"',
    'scontrol': 'echo "scontrol $*"',
  }
  for name, text in programs.items():
    write_program(path / name, f'#!/bin/sh\n{text}\n')
  return subprocess.Popen(
    argv,
    env=os.environ
    | {'PATH': f'{path}:{os.environ["PATH"]}', 'WORKDIR': str(folder)}
    | environment,
    stdout=subprocess.PIPE,
    text=True,
  )


FINISH = 'touch "$WORKDIR/results.json"'


@pytest.mark.parametrize(
  ('train', 'code', 'requeued'),
  [(FINISH, 0, False), ('exit 3', 3, False), ('exit 0', 0, True)],
)
def test_slurm_job_goes_on_until_finished(tmp_path, train, code, requeued):
  script = ROOT / 'experiments' / 'cluster' / 'train.sbatch'
  argv = ['bash', str(script), '--config', 'a b.py']
  process = run_script(argv, tmp_path, train, SLURM_JOB_ID='7')
  command = f'hier-jax train --config a b.py --workdir {tmp_path}'
  expected = [f'srun --kill-on-bad-exit=1 --label {command}']
  expected += ['scontrol requeue 7'] * requeued
  assert process.communicate(timeout=60)[0].splitlines() == expected
  assert process.returncode == code


def jobset():
  yaml = pytest.importorskip('yaml')
  text = (ROOT / 'experiments' / 'cluster' / 'jobset.yaml').read_text()
  return list(yaml.safe_load_all(text))


def test_jobset_is_what_jax_asks_for():
  account, _, binding, found = jobset()
  assert binding['subjects'][0]['name'] == account['metadata']['name']
  (train,) = found['spec']['replicatedJobs']
  job = train['template']['spec']
  # How JAX counts the processes, and knows which one it is.
  assert job['completionMode'] == 'Indexed'
  assert job['parallelism'] == job['completions']
  pod = job['template']['spec']
  assert pod['serviceAccountName'] == account['metadata']['name']
  (container,) = pod['containers']
  sides = pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
  chips = (
    job['parallelism'] * container['resources']['limits']['google.com/tpu']
  )
  assert chips == int(sides[0]) * int(sides[1])
  assert container['volumeMounts'][0]['mountPath'] == commands.MOUNT


@pytest.mark.parametrize(
  ('train', 'index', 'code'),
  [(FINISH, 0, 0), ('exit 3', 0, 3), ('exit 0', 0, 1), ('exit 0', 1, 0)],
)
def test_pods_succeed_when_the_run_is_finished(tmp_path, train, index, code):
  (container,) = _container()
  argv = container['command'] + container['args']
  process = run_script(argv, tmp_path, train, JOB_COMPLETION_INDEX=str(index))
  assert process.wait() == code


def test_pods_hand_on_sigterm(tmp_path):
  (container,) = _container()
  train = (
    'trap "echo saved; exit 0" TERM; echo ready; while :; do sleep .05; done'
  )
  argv = container['command'] + container['args']
  with run_script(argv, tmp_path, train, JOB_COMPLETION_INDEX='0') as process:
    assert process.stdout.readline() == 'ready\n'
    process.terminate()
    assert process.communicate(timeout=60)[0] == 'saved\n'
  # Saved, not finished: the pod has failed, and all start again.
  assert process.returncode != 0


def _container():
  job = jobset()[-1]['spec']['replicatedJobs'][0]['template']['spec']
  return job['template']['spec']['containers']
