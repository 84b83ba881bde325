"""Names by which a program may reach more than its own objects, and those known not to. Pure."""

from __future__ import annotations

import re
import sys


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules that give no way to other objects than their own; the rest of a path is looked at too.
_HARMLESS = words("""
__future__ abc argparse array asyncio base64 binascii bisect bz2 calendar cmath collections
colorsys concurrent configparser contextlib contextvars copy csv dataclasses datetime decimal
difflib enum errno fnmatch fractions functools getpass glob graphlib gzip hashlib heapq hmac html
io ipaddress itertools json keyword locale logging lzma math numbers numpy operator os pandas
pathlib platform pprint queue random re sched secrets shlex shutil sqlite3 stat statistics string
struct sys tarfile tempfile textwrap threading time token types typing unicodedata urllib uuid
warnings weakref xml zipfile zlib zoneinfo
""")  # fmt: skip
_SUBMODULES = re.compile(r"(logging|urllib\.request|numpy|pandas|concurrent\.futures\.process)\..*")
_HARMLESS_SUBMODULES = {"numpy.linalg", "numpy.random", "numpy.fft", "numpy.typing"}
# Of these modules only what is named here; of all others everything that `_DANGEROUS` lacks.
_HARMLESS_OF = {
    "os": words("""
    F_OK PathLike R_OK W_OK X_OK access chdir cpu_count curdir devnull environ error extsep
    fspath get_terminal_size getcwd getenv getpid linesep listdir makedirs mkdir name path
    pathsep remove rename replace rmdir scandir sep stat strerror times unlink urandom utime
    walk
    """),
    "sys": words("""
    argv byteorder executable exit float_info getdefaultencoding getrecursionlimit getrefcount
    getsizeof hexversion implementation int_info intern maxsize maxunicode platform
    set_int_max_str_digits setrecursionlimit stderr stdin stdout version version_info
    """),
    "gc": words("collect disable enable get_count get_stats get_threshold isenabled"),
    "inspect": words("""
    Parameter Signature cleandoc getdoc isabstract isasyncgenfunction isawaitable isbuiltin isclass
    iscoroutine iscoroutinefunction isfunction isgenerator isgeneratorfunction ismethod signature
    """),
    "io": words("""
    BufferedReader BytesIO IOBase RawIOBase SEEK_CUR SEEK_END SEEK_SET StringIO TextIOBase
    TextIOWrapper UnsupportedOperation
    """),
    "types": words("""
    AsyncGeneratorType BuiltinFunctionType BuiltinMethodType CoroutineType EllipsisType
    GeneratorType GenericAlias MappingProxyType MethodType NoneType NotImplementedType
    SimpleNamespace TracebackType UnionType
    """),
}  # fmt: skip
_DANGEROUS = words("""
Formatter ForwardRef addaudithook call_tracing excepthook get_objects get_referents get_referrers
get_type_hints make_dataclass setprofile settrace singledispatch singledispatchmethod
""")
# Attributes of any owner, with or without an underscore before them: modules that the harmless
# ones hold and that give all power, under their own and other names, and unbuffered files, whose
# type opens any descriptor.
REACHING = words("""
FileIO bltn_open bltns builtins codecs ctypes currentframe detach fcntl gc genericpath getframe
importlib inspect io linecache marshal mmap mp multiprocessing nt ntpath os pickle posix posixpath
raw signal socket subprocess sys tokenize traceback types unittest
""")
# Attributes whose value is a module, though no import statement may name it.
PARTS = re.compile(
    r"os\.path|collections\.abc|concurrent\.futures|logging\.(config|handlers)"
    r"|json\.(decoder|encoder|scanner|tool)|urllib\.(error|parse|request|response)"
    r"|xml\.(dom|etree|parsers|sax)(\.[a-z]+|\.ElementTree)?"
    r"|(numpy|pandas)\.(api|char|core|fft|io|lib|linalg|ma|polynomial|random|testing|tseries)(\.[a-z]+)?"
)
METACLASSES = words("ABCMeta EnumMeta EnumType NamedTupleMeta type")
_OF_ARRAYS = words("eval f2py ctypeslib lib load fromfile memmap")
NAMES = words("breakpoint compile delattr eval exec globals help locals setattr vars")
TOOLS = words("__builtins__ __debug__ __import__ __loader__ __spec__")
# By text: allowed with constant harmless names only.
BY_TEXT = words("attrgetter getattr hasattr methodcaller")
DUNDERS = words("""
__add__ __all__ __annotations__ __call__ __cause__ __class__ __contains__ __context__ __doc__
__enter__ __eq__ __exit__ __file__ __format__ __getitem__ __hash__ __init__ __init_subclass__
__iter__ __len__ __lt__ __main__ __members__ __name__ __new__ __next__ __notes__ __post_init__
__qualname__ __repr__ __setitem__ __str__ __version__
""")
HOOKS = words("""
__array__ __array_function__ __array_ufunc__ __class__ __getattribute__ __instancecheck__
__subclasscheck__ __subclasshook__ __reduce__ __reduce_ex__ load_tests setUpModule
""")
_FRAMES = re.compile(
    r"f_(back|builtins|code|globals|lasti|lineno|locals|trace\w*)|(gi|cr|ag)_(code|frame|origin)"
    r"|tb_(frame|next)|co_(code|consts|names|varnames|filename|name|positions|lines|replace)"
)
DUNDER = re.compile(r"__[A-Za-z]+__")


def is_harmless_module(path: str) -> bool:
    """Whether importing a module gives no way to anything but its own."""
    risky = _SUBMODULES.fullmatch(path) and path not in _HARMLESS_SUBMODULES
    return path.partition(".")[0] in _HARMLESS and not risky


def leads_on(name: str) -> bool:
    """Whether an attribute leads from an object to frames, dictionaries, other modules."""
    if name.startswith("__") and name.endswith("__"):
        return name not in DUNDERS
    return bool(_FRAMES.fullmatch(name))


def reaches(name: str) -> bool:
    """Whether an attribute leads on, or is a module or type that leads everywhere."""
    return leads_on(name) or name.lstrip("_") in REACHING


def is_risky(module: str, name: str) -> bool:
    """Whether a module's attribute leads elsewhere: to another module, or to what is private."""
    listed = _HARMLESS_OF.get(module)
    if listed is not None:
        return name not in listed
    if name.lstrip("_") in REACHING:
        return True
    if module.partition(".")[0] in {"numpy", "pandas"}:
        return name in _OF_ARRAYS or name.startswith("_")
    another = name in sys.stdlib_module_names and name != module.rpartition(".")[2]
    known = f"{module}.{name}" in {"concurrent.futures", "collections.abc", "string.templatelib"}
    return name in _DANGEROUS or name.startswith("_") or (another and not known)


def is_deep_risk(name: str) -> bool:
    """Whether a name leads elsewhere from a module's part, which may be a module or a class."""
    return (name.startswith("_") and name not in DUNDERS) or (
        name.lstrip("_") in REACHING or name in _DANGEROUS
    )
