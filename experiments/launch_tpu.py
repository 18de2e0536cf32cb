r"""Trains on a Cloud TPU: the machine, the source, the log, and an end to it.

    python experiments/launch_tpu.py --zone=us-west4-a --bucket=BUCKET -- \
      --config emoji:vit_tiny \
      --workdir /mnt/hier_jax/runs/emoji

requests a machine, waits for it, copies the files that git knows, installs
them on every worker, runs `hier-jax train` there with what stands after `--`,
prints its output, and deletes the machine, however that ended. A machine that
was taken away is requested anew, and the run goes on from its checkpoint.

Exit codes: the training's own; 2 for what the user can mend (a quota, a flag);
70 where a step before the training failed; 75 where the same command again may
go on; 130 after Ctrl-C. Nothing but Python and gcloud is needed here.
docs/cluster.md has the rest.
"""

import argparse
import os
import pathlib
import posixpath
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence

from cluster import commands, launch, local, source

# As Google Cloud takes it; a file on this machine is called by it, too.
_NAME = re.compile('[a-z]([-a-z0-9]{0,61}[a-z0-9])?')


def _parser():
  parser = argparse.ArgumentParser(
    usage='launch_tpu.py [flags] -- ARGUMENTS OF hier-jax train',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--zone', help='as us-west4-a')
  add('--project', help="gcloud's own by default")
  add('--name', default='hier-jax', help='of the machine')
  add('--accelerator_type', default='v5litepod-8')
  add('--runtime_version', help='by default what the accelerator takes')
  add('--spot', action='store_true', help='cheaper, may be taken away')
  add('--valid_until_duration', help='how long to wait for a machine, as 6h')
  shared = parser.add_mutually_exclusive_group()
  shared.add_argument('--bucket', help=f'is mounted at {commands.MOUNT}')
  shared.add_argument('--nfs', help='HOST:/PATH, is mounted there instead')
  add('--keep', action='store_true', help='leave machine and training')
  add('--attach', action='store_true', help='go on with what was left')
  add('--max_restarts', type=int, default=10, help='after preemptions')
  add('--poll_seconds', type=float, default=15.0)
  add('--dry_run', action='store_true', help='only print the commands')
  add(
    '--local_processes', type=int, help='train as this number of processes here'
  )
  return parser


def _runtime_version(options):
  """The runtime version given, or that of the accelerator's kind."""
  kind = options.accelerator_type.partition('-')[0]
  version = options.runtime_version or commands.RUNTIMES.get(kind)
  if version is None:
    raise launch.LaunchError(
      f'--accelerator_type is {options.accelerator_type}, whose runtime is not'
      f' known here: expected one of {", ".join(commands.RUNTIMES)} and its'
      ' size, as v5litepod-8, or --runtime_version=VERSION besides'
      ' (https://cloud.google.com/tpu/docs/runtimes)'
    )
  return version


def _request(options, arguments):
  """What is asked for; raises LaunchError where that cannot work."""
  train = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  train.add_argument('--config', '-config', default='')
  train.add_argument('--workdir', '-workdir', default='')
  found, _ = train.parse_known_args(arguments)
  config = found.config.partition(':')[0]
  workdir = pathlib.PurePosixPath(posixpath.normpath(found.workdir))
  if options.max_restarts < 0:
    raise launch.LaunchError(
      f'--max_restarts is {options.max_restarts}, expected 0 or more'
    )
  if not _NAME.fullmatch(options.name):
    raise launch.LaunchError(
      f'--name is {options.name!r}, expected up to 63 lower case letters,'
      ' digits and -, a letter first, no - last'
    )
  if options.zone is None:
    raise launch.LaunchError('--zone is missing, that of the TPU: us-west4-a')
  if not options.bucket and not options.nfs:
    raise launch.LaunchError(
      '--bucket NAME or --nfs HOST:/PATH is missing: a file system that all'
      ' workers share and that outlives them'
    )
  if pathlib.PurePosixPath(commands.MOUNT) not in workdir.parents:
    raise launch.LaunchError(
      f'--workdir is {found.workdir or "missing"}, expected a folder under'
      f' {commands.MOUNT}, which all workers share and which outlives them'
    )
  named = f'hier_jax/configs/{config}.py'
  if not {config, named} & set(source.tracked_files()):
    raise launch.LaunchError(
      f'--config is {config or "missing"}, expected the name of a config such'
      ' as emoji, or a file that git knows (git add), from the top of the'
      ' repository: others are not copied'
    )
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache'))
  return commands.Request(
    name=options.name,
    zone=options.zone,
    project=options.project,
    accelerator_type=options.accelerator_type,
    runtime_version=_runtime_version(options),
    spot=options.spot,
    valid_until_duration=options.valid_until_duration,
    bucket=options.bucket and options.bucket.removeprefix('gs://'),
    nfs=options.nfs,
    arguments=tuple(arguments),
    workdir=found.workdir,
    archive=str(cache.expanduser() / 'hier_jax' / f'{options.name}.tar.gz'),
  )


def _on_tpu(options, arguments):
  request = _request(options, arguments)
  if options.dry_run:
    plan = commands.plan(request, attach=options.attach, keep=options.keep)
    for argv in plan:
      print(shlex.join(argv))
    return 0
  if shutil.which('gcloud') is None:
    raise launch.LaunchError('gcloud is missing: https://cloud.google.com/sdk')
  # Told to end, this program deletes the machine as well.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  return launch.Launch(
    request, keep=options.keep, poll_seconds=options.poll_seconds
  ).run(attach=options.attach, max_restarts=options.max_restarts)


def _locally(options, arguments):
  if options.local_processes < 1:
    raise launch.LaunchError(
      f'--local_processes is {options.local_processes}, expected 1 or more'
    )
  argv = [sys.executable, '-m', 'hier_jax', 'train', *arguments]
  if options.dry_run:
    print(shlex.join(argv))
    return 0
  return local.run(argv, options.local_processes)


def main(argv: Sequence[str]) -> int:
  """Launches; returns the exit code."""
  argv = list(argv)
  split = argv.index('--') if '--' in argv else len(argv)
  options, arguments = _parser().parse_args(argv[:split]), argv[split + 1 :]
  try:
    if options.local_processes is not None:
      return _locally(options, arguments)
    return _on_tpu(options, arguments)
  except launch.LaunchError as error:
    launch.say(f'error: {error}')
    return error.code
  except source.SourceError as error:
    launch.say(f'error: {error}')
    return 2
  except KeyboardInterrupt:
    launch.say('interrupted')
    return 130


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
