"""What TensorBoard shows of the files of a folder."""

import collections
import struct

from tensorboardX.proto import event_pb2


def events(folder):
  """Events of the files of a folder in the order of their names."""
  for path in sorted(folder.iterdir()):
    data, start = path.read_bytes(), 0
    while start < len(data):
      # A record: its length in 8 bytes, 4 of checksum, itself, 4 of checksum.
      (length,) = struct.unpack_from('<Q', data, start)
      yield event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
      start += length + 16


def shown(folder):
  """Tag -> steps and values left once TensorBoard has seen all events."""
  scalars = collections.defaultdict(list)
  for event in events(folder):
    if event.session_log.status == event_pb2.SessionLog.START:
      for tag, found in scalars.items():
        scalars[tag] = [(s, v) for s, v in found if s < event.step]
    for value in event.summary.value:
      scalars[value.tag].append((event.step, value.simple_value))
  return {tag: found for tag, found in scalars.items() if found}
