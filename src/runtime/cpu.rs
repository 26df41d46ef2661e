//! Runs `model.wasm` natively, under wasmtime.

use crate::error::{Error, Kind, Result};
use std::sync::OnceLock;
use wasmtime::{
    Config, Engine, Instance, Linker, Memory, MemoryType, Module, OptLevel, SharedMemory, Store, StoreLimits,
    StoreLimitsBuilder,
};

/// An instance of `model.wasm`, in as many threads as it was made with. Offsets and lengths are bytes.
pub struct CpuModule {
    parts: Vec<Part>,
    memory: Lies,
}

struct Part {
    store: Store<StoreLimits>,
    instance: Instance,
}

enum Lies {
    /// In the only instance.
    Own(Memory),
    Shared(SharedMemory),
}

/// The engine that all modules share: its code caches and settings.
fn engine() -> Result<&'static Engine> {
    static ENGINE: OnceLock<std::result::Result<Engine, String>> = OnceLock::new();
    let made = ENGINE.get_or_init(|| {
        let mut config = Config::new();
        config.wasm_simd(true).wasm_relaxed_simd(true).wasm_threads(true).shared_memory(true);
        config.cranelift_opt_level(OptLevel::Speed);
        Engine::new(&config).map_err(|e| format!("{e:#}"))
    });
    made.as_ref().map_err(|e| Error::new(Kind::DeviceUnavailable, format!("wasmtime does not start: {e}")))
}

fn invalid(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidPackage, format!("model.wasm does not load: {e:#}"))
}

impl CpuModule {
    /// Instantiates a module that may take `memory` bytes. `threads` is for the threaded variant, and 1 for the others.
    pub fn new(wasm: &[u8], memory: u64, threads: usize) -> Result<Self> {
        let engine = engine()?;
        let module = Module::new(engine, wasm).map_err(invalid)?;
        let wanted = module.imports().find_map(|i| i.ty().memory().cloned());
        let shared = wanted.map(|ty| Self::shared_memory(engine, &ty, memory)).transpose()?;
        let limit = usize::try_from(memory.next_multiple_of(1 << 16)).unwrap_or(usize::MAX);
        let mut parts = vec![];
        for _ in 0..if shared.is_some() { threads.max(1) } else { 1 } {
            let limits = StoreLimitsBuilder::new().memory_size(limit).instances(1).memories(1).build();
            let mut store = Store::new(engine, limits);
            store.limiter(|l| l);
            let mut linker = Linker::new(engine);
            if let Some(m) = &shared {
                linker.define(&store, "env", "memory", m.clone()).map_err(invalid)?;
            }
            let instance = linker.instantiate(&mut store, &module).map_err(invalid)?;
            parts.push(Part { store, instance });
        }
        let memory = match (shared, parts.first_mut()) {
            (Some(m), _) => Lies::Shared(m),
            (None, Some(p)) => {
                let m = p.instance.get_memory(&mut p.store, "memory");
                Lies::Own(m.ok_or_else(|| invalid("it exports no memory"))?)
            }
            (None, None) => return Err(invalid("it has no instance")),
        };
        Ok(CpuModule { parts, memory })
    }

    fn shared_memory(engine: &Engine, ty: &MemoryType, limit: u64) -> Result<SharedMemory> {
        let pages = ty.maximum().unwrap_or(u64::MAX);
        if !ty.is_shared() || pages > limit.div_ceil(1 << 16) {
            return Err(invalid(format!("it wants {pages} pages of memory, and the plan has {limit} bytes")));
        }
        SharedMemory::new(engine, ty.clone()).map_err(invalid)
    }

    fn outside(at: u32, len: usize) -> Error {
        Error::new(
            Kind::InvalidPackage,
            format!("bytes {at}..{} lie outside the memory of model.wasm", at as usize + len),
        )
    }

    /// Copies bytes into memory.
    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Result<()> {
        match &self.memory {
            Lies::Own(m) => match self.parts.first_mut() {
                Some(p) => m.write(&mut p.store, at as usize, bytes).map_err(|_| CpuModule::outside(at, bytes.len())),
                None => Err(CpuModule::outside(at, bytes.len())),
            },
            Lies::Shared(m) => {
                let range = at as usize..(at as usize).saturating_add(bytes.len());
                let cells = m.data().get(range).ok_or_else(|| CpuModule::outside(at, bytes.len()))?;
                for (c, b) in cells.iter().zip(bytes) {
                    // SAFETY: instances run only inside of `run` and `step`, which borrow `self` mutably, as this does.
                    unsafe { *c.get() = *b };
                }
                Ok(())
            }
        }
    }

    /// Copies bytes out of memory.
    pub fn read(&mut self, at: u32, len: usize) -> Result<Vec<u8>> {
        let range = at as usize..(at as usize).saturating_add(len);
        let found = match &self.memory {
            Lies::Own(m) => self.parts.first().and_then(|p| m.data(&p.store).get(range)).map(<[u8]>::to_vec),
            Lies::Shared(m) => m.data().get(range).map(|cells| {
                // SAFETY: instances run only inside of `run` and `step`, which borrow `self` mutably, as this does.
                cells.iter().map(|c| unsafe { *c.get() }).collect()
            }),
        };
        found.ok_or_else(|| CpuModule::outside(at, len))
    }

    /// Runs all kernels.
    pub fn run(&mut self) -> Result<()> {
        self.each(|p, part, parts| {
            let run = p.instance.get_typed_func::<(i32, i32, i32), i32>(&mut p.store, "run")?;
            Ok(run.call(&mut p.store, (part, parts, 1))? != 0)
        })
    }

    /// Runs the kernel of that number alone, for profiles.
    pub fn step(&mut self, i: u32) -> Result<()> {
        let i = i.cast_signed();
        self.each(|p, part, parts| {
            let step = p.instance.get_typed_func::<(i32, i32, i32), ()>(&mut p.store, "step")?;
            step.call(&mut p.store, (i, part, parts))?;
            Ok(false)
        })
    }

    /// Calls `f` for every part, each in a thread of its own.
    fn each(&mut self, f: impl Fn(&mut Part, i32, i32) -> wasmtime::Result<bool> + Sync) -> Result<()> {
        let parts = i32::try_from(self.parts.len()).unwrap_or(i32::MAX);
        let lost = || Err(wasmtime::Error::msg("a thread of it ended"));
        let results: Vec<wasmtime::Result<bool>> = match &mut self.parts[..] {
            [only] => vec![f(only, 0, parts)],
            all => std::thread::scope(|scope| {
                let f = &f;
                let started: Vec<_> = (0i32..).zip(all).map(|(i, p)| scope.spawn(move || f(p, i, parts))).collect();
                started.into_iter().map(|t| t.join().unwrap_or_else(|_| lost())).collect()
            }),
        };
        let mut stopped = false;
        for r in results {
            stopped |= r.map_err(|e| Error::new(Kind::Internal, format!("model.wasm failed: {e:#}")))?;
        }
        if stopped { Err(Error::new(Kind::Aborted, "the run was stopped")) } else { Ok(()) }
    }
}

/// Instantiates a module that runs in one thread, writes each of `data` at its offset, runs it once, and returns the bytes
/// of each output (offset, length).
pub fn run_once(wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> Result<Vec<Vec<u8>>> {
    let mut m = CpuModule::new(wasm, 1 << 32, 1)?;
    for (at, bytes) in data {
        m.write(*at, bytes)?;
    }
    m.run()?;
    outputs.iter().map(|(at, len)| m.read(*at, *len)).collect()
}
