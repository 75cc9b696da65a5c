"""LLVM IR text in, native addresses out: parallel compilation, a memory cache and a disk cache.

A kernel arrives as explicit vector code with its loops already shaped, so the pass pipeline is short:
promote stack slots to registers and share equal values. LLVM's vectorisers and unroller are not run.
What it does not do: it neither emits nor inspects IR, and it never unloads code (an address stays valid as
long as the process lives).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

from tilewright.runtime.cache import DiskCache, TilewrightCacheWarning
from tilewright.runtime.statistics import stats
from tilewright.runtime.target import Target, available_cpus, host_target

__all__ = [
    "KernelCompileError",
    "KernelLibrary",
    "KernelSource",
    "TilewrightCacheWarning",
    "assembly",
    "default_library",
    "loaded",
    "optimised",
]

# One kernel to compile: (name of the function in the module, its LLVM IR text or a function that makes it,
# content hash).
KernelSource = tuple[str, "str | Callable[[], str]", str]

# Function passes, in order. Kernels arrive as explicit vector code with rotated loops, so this is most of
# what is left to do. Measured on emitted GEMM, softmax, map and reduction kernels: the same speed as after
# -O2, which takes six times as long; code generation, 3 to 11 ms a kernel, then takes most of the time.
PIPELINE = ("sroa", "new_gvn")
_CODEGEN_LEVEL = 2
# LLVM 22's NewGVN, with phi-of-ops, takes masks of one iteration of a nested unrolled loop for those of another. The
# option is the whole process's, set before any thread compiles; nothing but this pipeline runs that pass.
llvm.set_option("tilewright", "-enable-phi-of-ops=false")
# Raise when the pipeline, the kernel calling convention or the entry format changes: old disk entries are
# then not found.
VERSION = "2"


class KernelCompileError(RuntimeError):
    """LLVM refused a kernel, a defect of whatever emitted it; the message has the name and the complaint."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"kernel {name}: LLVM says: {message.strip()}")
        self.kernel = name


def _unlocked(function: Any) -> Any:
    """The C function under llvmlite's wrapper, which would hold one global lock during the whole call.

    Used for the four long calls on modules whose context belongs to the calling thread alone, which LLVM
    allows.
    """
    return getattr(function, "_cfn", function)


class _Codegen:
    """Modules through passes to object code or assembly for one target; any number of threads at once."""

    def __init__(self, target: Target) -> None:
        _initialize_llvm()
        self.target = target
        self._llvm_target = _find_llvm_target(target.triple)
        self._machines: list[Any] = []  # idle target machines; each is used by one thread at a time

    def create_machine(self) -> Any:
        return self._llvm_target.create_target_machine(
            cpu=self.target.cpu,
            features=self.target.features,
            opt=_CODEGEN_LEVEL,
            reloc="pic",
            codemodel="small",
            jit=True,
        )

    def object_code(self, name: str, ir: str) -> bytes:
        """Relocatable object code of the module `ir`. Raises `KernelCompileError`."""
        return self._with_module(name, ir, lambda machine, module: _emit(machine, module, as_object=True))

    def assembly(self, name: str, ir: str) -> str:
        """Assembly text of the module `ir`. Raises `KernelCompileError`."""
        return self._with_module(
            name, ir, lambda machine, module: _emit(machine, module, as_object=False)
        ).decode()

    def optimised(self, name: str, ir: str) -> str:
        """The module's IR text after the pipeline. Raises `KernelCompileError`."""
        return self._with_module(name, ir, lambda machine, module: str(module).encode()).decode()

    def _with_module(self, name: str, ir: str, use: Callable[[Any, Any], bytes]) -> bytes:
        try:
            machine = self._machines.pop()
        except IndexError:
            machine = self.create_machine()
        # Everything is closed here, in the order LLVM needs: the garbage collector might close a context
        # before its module.
        try:
            with llvm.create_context() as context, _parse(ir, context) as module:
                module.verify()
                _run_pipeline(machine, module)
                return use(machine, module)
        except RuntimeError as error:
            raise KernelCompileError(name, str(error)) from None
        finally:
            self._machines.append(machine)


_initialized = False


def _initialize_llvm() -> None:
    global _initialized
    if not _initialized:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _initialized = True


def _find_llvm_target(triple: str) -> Any:
    try:
        return llvm.Target.from_triple(triple)
    except RuntimeError:  # not this machine's: a listing for another
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(triple)


def _parse(ir: str, context: Any) -> Any:
    """The module of `ir` in a context that no other thread uses. Raises RuntimeError."""
    text = ctypes.c_char_p(ir.encode())
    with ffi.OutputString() as complaint:
        pointer = _unlocked(ffi.lib.LLVMPY_ParseAssembly)(context, text, complaint)
        if complaint or not pointer:
            raise RuntimeError(str(complaint) if complaint else "the module cannot be read")
    return llvm.ModuleRef(pointer, context)


def _run_pipeline(machine: Any, module: Any) -> None:
    run = _unlocked(ffi.lib.LLVMPY_RunNewFunctionPassManager)
    with (
        llvm.create_pipeline_tuning_options(speed_level=2) as options,
        llvm.create_pass_builder(machine, options) as builder,
        llvm.create_new_function_pass_manager() as passes,
    ):
        for name in PIPELINE:
            getattr(passes, f"add_{name}_pass")()
        for function in module.functions:
            if not function.is_declaration:
                run(passes, function, builder)


def _emit(machine: Any, module: Any, *, as_object: bool) -> bytes:
    with ffi.OutputString() as complaint:
        buffer = _unlocked(ffi.lib.LLVMPY_TargetMachineEmitToMemory)(
            machine, module, int(as_object), complaint
        )
        if not buffer:
            raise RuntimeError(str(complaint))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly(ir: str, target: Target | None = None) -> str:
    """Assembly text of an LLVM IR module, for this machine or another target; nothing is run or cached."""
    return _Codegen(target or host_target()).assembly("module", ir)


def optimised(ir: str, target: Target | None = None) -> str:
    """LLVM IR text of a module after the pipeline (nothing is run or cached)."""
    return _Codegen(target or host_target()).optimised("module", ir)


class KernelLibrary:
    """Compiled kernels of this process for one target.

    >>> library = KernelLibrary()
    >>> ir = "define i32 @seven() { ret i32 7 }"
    >>> address = library.compile([("seven", ir, "")])["seven"]
    >>> ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    7
    """

    def __init__(self, target: Target | None = None, cache: DiskCache | None = None) -> None:
        self.target = target or host_target()
        self.cache = cache or DiskCache.from_settings()
        self._codegen = _Codegen(self.target)
        self._jit: Any = None
        self._link_count = 0
        self._addresses: dict[str, int] = {}  # by cache key
        self._sources: dict[str, str | Callable[[], str]] = {}  # by kernel name, for listings
        self._lock = threading.RLock()
        _live_libraries.add(self)

    def key(self, name: str, ir: str | Callable[[], str], key_hash: str) -> str:
        """The cache key of a kernel for this target, this LLVM and this pipeline, in hexadecimal."""
        content = ir if isinstance(ir, str) else key_hash
        if not content:
            raise ValueError(f"kernel {name}: a content hash is needed when its LLVM IR is made on demand")
        kind = "ir" if isinstance(ir, str) else "hash"
        llvm_version = ".".join(map(str, llvm.llvm_version_info))
        pipeline = ",".join((*PIPELINE, str(_CODEGEN_LEVEL)))
        parts = (VERSION, llvmlite.__version__, llvm_version, pipeline, self.target.key, name, kind, content)
        return blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()

    def compile(self, items: Iterable[KernelSource]) -> dict[str, int]:
        """Native addresses of kernels by name, from memory, from disk, or compiled now on all CPUs.

        Each item is `(name, ir, key_hash)`: the module `ir` defines the function `name` (its other globals
        are `private` or `internal`). `ir` is text, or a function that returns it and is called only when
        the kernel is in no cache; then `key_hash` must identify the text (a hash of whatever it is made
        from and of the emitter's version).
        Raises `KernelCompileError` when LLVM refuses a module, and ValueError when one name has two contents.
        """
        with self._lock:
            keys = self._keys(items)
            missing = {name: key for name, key in keys.items() if key not in self._addresses}
            stats.memory_hits += len(keys) - len(missing)
            objects: dict[str, bytes] = {}
            for name, key in missing.items():
                code = self.cache.get(key)
                if code is not None:
                    objects[name] = code
            fresh = self._build([name for name in missing if name not in objects])
            for name, code in fresh.items():
                self.cache.put(missing[name], code)
            objects.update(fresh)
            for name, address in self._link(objects).items():
                self._addresses[missing[name]] = address
            return {name: self._addresses[key] for name, key in keys.items()}

    def _keys(self, items: Iterable[KernelSource]) -> dict[str, str]:
        keys: dict[str, str] = {}
        for name, ir, key_hash in items:
            key = self.key(name, ir, key_hash)
            if keys.setdefault(name, key) != key:
                raise ValueError(f"two different kernels are called {name}")
            self._sources[name] = ir
        return keys

    def _build(self, names: Sequence[str]) -> dict[str, bytes]:
        """Object code of kernels that no cache has, longest text first so that threads finish together."""
        if not names:
            return {}
        texts = {name: self._text(name) for name in names}
        order = sorted(names, key=lambda name: -len(texts[name]))

        def build(name: str) -> bytes:
            started = time.perf_counter()
            code = self._codegen.object_code(name, texts[name])
            stats.compile_seconds += time.perf_counter() - started
            return code

        threads = min(len(order), available_cpus())
        if threads == 1:
            codes = [build(name) for name in order]
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="tilewright-compile") as pool:
                codes = list(pool.map(build, order))
        stats.kernels_compiled += len(order)
        return dict(zip(order, codes, strict=True))

    def _text(self, name: str) -> str:
        source = self._sources[name]
        return source if isinstance(source, str) else source()

    def _link(self, objects: dict[str, bytes]) -> dict[str, int]:
        """Load object code into the process; returns each function's address."""
        if not objects:
            return {}
        if self._jit is None:
            self._jit = llvm.create_lljit_compiler(self._codegen.create_machine(), use_jit_link=True)
            loaded.append(self._jit)
        builder = (
            llvm.JITLibraryBuilder().add_current_process()
        )  # memset and the like come from the C library
        for name, code in objects.items():
            builder.add_object_img(code).export_symbol(name)
        try:
            library = builder.link(self._jit, f"kernels{self._link_count}")
        except RuntimeError as error:
            first, others = next(iter(objects)), len(objects) - 1
            raise KernelCompileError(
                f"{first} (and {others} others)" if others else first, str(error)
            ) from None
        finally:
            self._link_count += 1  # a name is used up even by a failure
        loaded.append(library)
        addresses = {name: int(library[name]) for name in objects}
        for name, address in addresses.items():
            if not address:
                raise KernelCompileError(name, "the module does not define a function of this name")
        return addresses

    def disassemble(self, name: str) -> str:
        """Assembly text of a kernel given to `compile` before. Raises KeyError for an unknown name."""
        return self._codegen.assembly(name, self._known(name))

    def optimised(self, name: str) -> str:
        """LLVM IR text, after the pipeline, of a kernel given to `compile`. Raises KeyError if unknown."""
        return self._codegen.optimised(name, self._known(name))

    def llvm_ir(self, name: str) -> str:
        """LLVM IR text, as emitted, of a kernel given to `compile` before. Raises KeyError if unknown."""
        return self._known(name)

    def _known(self, name: str) -> str:
        if name not in self._sources:
            raise KeyError(f"no kernel called {name} was compiled in this process")
        return self._text(name)


# LLVM unloads code with its owner. Programs hold bare addresses, so nothing that was loaded is ever let go.
loaded: list[Any] = []
_live_libraries: weakref.WeakSet[KernelLibrary] = weakref.WeakSet()
_default: dict[str, KernelLibrary] = {}


def default_library() -> KernelLibrary:
    """The process's library for the current target (`TW_TARGET` or the host) and cache settings."""
    target = host_target()
    cache = DiskCache.from_settings()
    key = f"{target.key}|{cache.directory}|{cache.max_bytes}"
    if key not in _default:
        _default[key] = KernelLibrary(target, cache)
    return _default[key]


def _renew_locks() -> None:
    """A forked child has one thread: locks that others held at the fork would never be released."""
    for library in _live_libraries:
        library._lock = threading.RLock()
    if hasattr(ffi.lib, "_lock"):  # llvmlite's own, around every short call
        ffi.lib._lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
