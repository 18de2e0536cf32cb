"""A `gcloud` without a cloud: machines are folders, ssh runs commands there.

It stands in the folder FAKE_GCLOUD: `calls.jsonl` has what it was called with,
`state` is the machine's, `worker<i>` is the home of a worker. `faults.json`
says what goes wrong: name of a call -> kinds by its number, '' for nothing.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

FAKE = pathlib.Path(os.environ.get('FAKE_GCLOUD', ''))
WORKERS = int(os.environ.get('FAKE_WORKERS', '2'))
QUOTA = "Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded."
_PR_SET_CHILD_SUBREAPER = 36
# How the commands on workers are told apart.
PARTS = {
  'pip install': 'install',
  'nohup': 'start',
  'tail -n': 'follow',
  'pkill': 'stop',
}


def name_of(argv):
  """What a call is for: create, describe, delete, copy, install, start, ..."""
  if argv[3] == 'queued-resources':
    return argv[4]
  if argv[4] == 'scp':
    return 'copy'
  command = next(a for a in argv if a.startswith('--command='))
  return next(name for part, name in PARTS.items() if part in command)


def calls():
  path = FAKE / 'calls.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines]


def fail(text, code=1):
  print(f'ERROR: (gcloud) {text}', file=sys.stderr, flush=True)
  sys.exit(code)


def homes():
  return [FAKE / f'worker{i}' for i in range(WORKERS)]


def groups():
  """Process groups of the trainings."""
  for path in FAKE.glob('worker*/hier_jax_run/pid'):
    yield int(path.read_text())


def end(number):
  for group in groups():
    with contextlib.suppress(ProcessLookupError):
      os.killpg(group, number)


def remove_machine():
  end(signal.SIGKILL)
  for home in homes():
    shutil.rmtree(home, ignore_errors=True)


def ssh(command, **options):
  return [
    subprocess.Popen(
      ['bash', '-c', command],
      env=os.environ
      | {
        'HOME': str(home),
        'PATH': f'{FAKE}/bin:{os.environ["PATH"]}',
        'FAKE_HOSTNAME': f't1v-n-0abc-w-{i}',
      },
      cwd=home,
      start_new_session=True,
      **options,
    )
    for i, home in enumerate(homes())
  ]


def started(command):
  """Runs a command whose children stay; returns its exit code.

  Like a machine's first process this waits for them when they end; the one of
  a container may leave that for a second, in which they look alive.
  """
  reading, writing = os.pipe()
  if os.fork() == 0:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    code = max(process.wait() for process in ssh(command))
    os.write(writing, bytes([code]))
    # Whoever reads the output of this call sees its end.
    for standard in 1, 2, writing:
      os.close(standard)
    while True:
      try:
        os.wait()
      except ChildProcessError:
        os._exit(0)
  os.close(writing)
  return os.read(reading, 1)[0]


def first_lines(command):
  """Passes on the first line of each worker, then cuts the connection."""
  for process in ssh(command, stdout=subprocess.PIPE, text=True):
    print(process.stdout.readline(), end='', flush=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def on_workers(name, command, fault):
  if (FAKE / 'state').read_text() != 'ACTIVE':
    fail('This TPU has terminal state "PREEMPTED".')
  if fault == 'preempted':
    first_lines(command)
    remove_machine()
    (FAKE / 'state').write_text('SUSPENDED')
    fail('This TPU has terminal state "PREEMPTED".')
  if fault == 'dropped' and name == 'follow':
    first_lines(command)
    (FAKE / 'go').touch()
    fail('[ssh] exited with return code [255].', 255)
  if fault == 'unreachable':
    fail('[ssh] exited with return code [255].', 255)
  if name == 'start':
    code = started(command)
    sys.exit(255 if fault == 'dropped' else code)
  processes = ssh(command)
  if fault == 'shutdown':
    for home in homes():
      while 'step 1' not in (home / 'hier_jax_run' / 'log').read_text():
        pass
    end(signal.SIGTERM)
  if fault == 'killed':
    end(signal.SIGKILL)
  code = max(process.wait() for process in processes)
  if fault == 'dropped':
    fail('[ssh] exited with return code [255].', 255)
  sys.exit(code)


def main(argv):
  name = name_of(argv)
  number = sum(name_of(call) == name for call in calls())
  with (FAKE / 'calls.jsonl').open('a') as file:
    file.write(json.dumps(argv) + '\n')
  faults = json.loads((FAKE / 'faults.json').read_text()).get(name, [])
  fault = faults[number] if number < len(faults) else ''
  state = FAKE / 'state'
  if name == 'create':
    if fault == 'quota':
      fail(QUOTA)
    if state.exists():
      fail('ALREADY_EXISTS: Resource already exists')
    state.write_text('ACTIVE')
    for home in homes():
      home.mkdir()
    if fault == 'slow':
      time.sleep(1)
  elif name == 'describe':
    if not state.exists():
      fail('NOT_FOUND: Resource was not found')
    if fault == 'offline':
      fail('Unable to find the server at tpu.googleapis.com')
    found = {'state': fault or state.read_text()}
    if fault == 'FAILED':
      found['failedData'] = {'error': {'code': 8, 'message': QUOTA}}
    print(json.dumps({'state': found}))
  elif name == 'delete':
    if fault:
      fail('INTERNAL: try again')
    remove_machine()
    state.unlink()
  elif name == 'copy':
    for home in homes():
      shutil.copy(argv[5], home / argv[6].partition(':')[2])
  else:
    command = next(a for a in argv if a.startswith('--command='))
    on_workers(name, command.partition('=')[2], fault)


if __name__ == '__main__':
  main(['gcloud', *sys.argv[1:]])
