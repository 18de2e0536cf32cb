"""What is run in Google Cloud and on its machines, as argv lists.

gcloud runs a command anew where its ssh connection broke, even if the first one
is still at work. So each of them may be run twice, and the training is started
beside the connection: whether one is there decides nothing.
"""

import dataclasses
import shlex

__all__ = [
  'FAILED',
  'MOUNT',
  'RUNTIMES',
  'Request',
  'copy',
  'create',
  'delete',
  'describe',
  'follow',
  'install',
  'plan',
  'start',
  'stop',
]

# Where every worker has the file system that they share.
MOUNT = '/mnt/hier_jax'
# Kind of accelerator, as types begin with -> the runtime version for JAX
# (https://cloud.google.com/tpu/docs/runtimes).
RUNTIMES = {
  'v2': 'tpu-ubuntu2204-base',
  'v3': 'tpu-ubuntu2204-base',
  'v4': 'tpu-ubuntu2204-base',
  'v5litepod': 'v2-alpha-tpuv5-lite',
  'v5p': 'v2-alpha-tpuv5',
  'v6e': 'v2-alpha-tpuv6e',
}
# What a remote command's own failure is turned into: gcloud's are 1, 2 and 255.
FAILED = 70

# On each worker.
_ARCHIVE, _SOURCE, _RUN = 'hier_jax.tar.gz', '~/hier_jax', '~/hier_jax_run'

# A worker must see at once what another wrote; by default gcsfuse caches what
# it knows of files, on TPU machines for ever. A bucket without folders has them
# implied by names, and renames them file by file, up to a limit.
_GCSFUSE = (
  'gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0'
  ' --implicit-dirs --rename-dir-limit=200000'
)
# A fresh machine updates itself and holds the lock for minutes.
_APT = 'sudo apt-get -qq -o DPkg::Lock::Timeout=600'
_KEY = '/usr/share/keyrings/cloud.google.asc'
_PACKAGES = 'https://packages.cloud.google.com/apt'


@dataclasses.dataclass(frozen=True)
class Request:
  """A machine, what it mounts, and what is trained on it.

  Attributes:
    name: of the queued resource and of its node.
    zone: as `us-west4-a`.
    accelerator_type: as `v5litepod-8`.
    runtime_version: the image of the workers.
    arguments: of `hier-jax train`.
    workdir: the one among them, under `MOUNT`.
    archive: the source as a .tar.gz on this machine.
    bucket: a bucket's name; or else
    nfs: `HOST:/PATH`.
    project: None for gcloud's own.
    spot: cheaper, and may be taken away.
    valid_until_duration: how long to wait for the machine, as `6h`.
  """

  name: str
  zone: str
  accelerator_type: str
  runtime_version: str
  arguments: tuple[str, ...]
  workdir: str
  archive: str
  bucket: str | None = None
  nfs: str | None = None
  project: str | None = None
  spot: bool = False
  valid_until_duration: str | None = None


def _gcloud(request, *words):
  where = [f'--zone={request.zone}']
  if request.project is not None:
    where.append(f'--project={request.project}')
  return ['gcloud', 'compute', 'tpus', *words, *where, '--quiet']


def _ssh(request, *steps):
  """Runs shell commands on all workers, until one of them fails."""
  return _gcloud(
    request,
    'tpu-vm',
    'ssh',
    request.name,
    '--worker=all',
    # Without it a connection to a machine that is gone hangs for ever.
    '--ssh-flag=-oServerAliveInterval=30',
    f'--command=({" && ".join(steps)}) || exit {FAILED}',
  )


def create(request):
  """Requests the machine."""
  options = [
    f'--node-id={request.name}',
    f'--accelerator-type={request.accelerator_type}',
    f'--runtime-version={request.runtime_version}',
  ]
  if request.spot:
    options.append('--spot')
  if request.valid_until_duration is not None:
    options.append(f'--valid-until-duration={request.valid_until_duration}')
  return _gcloud(request, 'queued-resources', 'create', request.name, *options)


def describe(request):
  """The state of the request, as JSON."""
  return _gcloud(
    request,
    'queued-resources',
    'describe',
    request.name,
    '--format=json(state)',
  )


def delete(request):
  """Gives the machine back."""
  return _gcloud(request, 'queued-resources', 'delete', request.name, '--force')


def copy(request):
  """Copies the source to every worker."""
  return _gcloud(
    request,
    'tpu-vm',
    'scp',
    request.archive,
    f'{request.name}:{_ARCHIVE}',
    '--worker=all',
  )


def install(request):
  """Mounts what is shared, and installs the package with JAX for TPUs."""
  return _ssh(
    request,
    *_mount(request),
    f'mkdir -p {_SOURCE}',
    f'tar -xzf ~/{_ARCHIVE} -C {_SOURCE}',
    f'cd {_SOURCE}',
    # The image's own Python may be older than the package allows.
    'python3 -m pip install --quiet --user uv',
    'python3 -m uv venv --quiet --allow-existing --python=3.11 .venv',
    "python3 -m uv pip install --quiet -e . 'jax[tpu]'",
  )


def _mount(request):
  if request.nfs is not None:
    tools = [f'{_APT} update', f'{_APT} install -y nfs-common']
    mount = f'sudo mount -t nfs -o hard {shlex.quote(request.nfs)} {MOUNT}'
  else:
    source = f'deb [signed-by={_KEY}] {_PACKAGES} gcsfuse-$(lsb_release -cs)'
    tools = [
      f'curl -fsS {_PACKAGES}/doc/apt-key.gpg | sudo tee {_KEY} > /dev/null',
      f'echo "{source} main"'
      ' | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null',
      f'{_APT} update',
      f'{_APT} install -y gcsfuse',
    ]
    mount = f'{_GCSFUSE} {shlex.quote(request.bucket)} {MOUNT}'
  own = f'sudo mkdir -p {MOUNT}', f'sudo chown $USER {MOUNT}'
  steps = [*tools, *own, mount]
  return [f'{{ mountpoint -q {MOUNT} || {{ {" && ".join(steps)}; }}; }}']


def start(request):
  """Starts the training on every worker, where it was not started before."""
  train = shlex.join(['.venv/bin/hier-jax', 'train', *request.arguments])
  # A machine that is shut down ends all its processes with SIGTERM: the shell
  # waits for the training, which saves first, and writes down its exit code.
  script = f'trap : TERM; PYTHONUNBUFFERED=1 {train}; echo $? > {_RUN}/exit'
  detached = f'nohup setsid bash -c {shlex.quote(script)}'
  return _ssh(
    request,
    # One of any number of callers makes the folder, and a machine trains once.
    f'{{ mkdir {_RUN} 2> /dev/null || exit 0; }}',
    f'cd {_SOURCE}',
    f'{{ {detached} > {_RUN}/log 2>&1 < /dev/null & echo $! > {_RUN}/pid; }}',
  )


def follow(request, nonce='NONCE'):
  """Prints the log of every worker from its beginning until training ends.

  Lines are `NONCE:WORKER:NUMBER:TEXT`, the last ones `NONCE:WORKER:exit:CODE`
  and, where the run is at its end, `NONCE:WORKER:finished:`. Only who knows the
  nonce, which training does not, can write such a line.
  """
  results = shlex.quote(f'{request.workdir}/results.json')
  return _ssh(
    request,
    f'cd {_RUN}',
    # Workers are called NAME-w-NUMBER.
    f'w=$(hostname) && w={nonce}:${{w##*-}}',
    '{ tail -n +1 -s .1 -F --pid=$(cat pid) log 2> /dev/null'
    ' | grep -an --line-buffered "" | sed -u "s/^/$w:/"; }',
    # A shell that was killed wrote no exit code.
    'echo "$w:exit:$(cat exit 2> /dev/null || echo 137)"',
    f'{{ test ! -e {results} || echo "$w:finished:"; }}',
  )


def stop(request):
  """Has the training save and end, and waits until it did."""
  return _ssh(
    request,
    f'cd {_RUN}',
    'pkill -TERM -P $(cat pid)',
    'timeout 120 tail -s .1 -f --pid=$(cat pid) /dev/null',
  )


def plan(request, *, attach=False, keep=False):
  """The commands of a launch in which nothing goes wrong, in their order."""
  before = [] if attach else [create]
  prepare = [] if attach else [copy, install, start]
  after = [] if keep else [delete]
  steps = [*before, describe, *prepare, follow, *after]
  return [step(request) for step in steps]
