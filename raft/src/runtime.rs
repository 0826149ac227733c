//! [`Runtime`]: what openraft runs on. It is tokio, except that a member may be put into the hands of
//! a [`Host`], as a simulation does: the host draws its random numbers, stops its tasks as a paused
//! machine would, ends them as a crash does, and makes its disk slow.
//!
//! What runs within a host, and what that spawns here, belongs to it. Where there is no host, as in
//! every server, this is tokio itself.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use openraft::OptionalSend;
use openraft::impls::TokioRuntime;
use openraft::rt::AsyncRuntime;
use parking_lot::Mutex;
use rand::rand_core::TryRng;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use self::watch::Latest;

mod watch;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// A machine that a member runs on, in a simulation.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    rng: Mutex<StdRng>,
    life: Mutex<Life>,
    /// How long each sync takes, in microseconds.
    sync_us: Mutex<Range<u64>>,
}

enum Life {
    Runs,
    /// With whom to wake when it goes on.
    Paused(Vec<Waker>),
    Ended,
}

impl Host {
    /// A machine whose random numbers follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            life: Mutex::new(Life::Runs),
            sync_us: Mutex::new(0..1),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs a future, or a stream, on this machine.
    pub fn run<F>(&self, future: F) -> Hosted<F> {
        Hosted { host: Some(self.clone()), inner: Box::pin(future) }
    }

    /// Stops everything on it until [`Host::resume`]. Time goes on.
    pub fn pause(&self) {
        let mut life = self.inner.life.lock();
        if matches!(*life, Life::Runs) {
            *life = Life::Paused(Vec::new());
        }
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        let mut life = self.inner.life.lock();
        if let Life::Paused(waiting) = &mut *life {
            let waiting = std::mem::take(waiting);
            *life = Life::Runs;
            drop(life);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Stops everything on it for good: what waits for it waits in vain.
    pub fn end(&self) {
        *self.inner.life.lock() = Life::Ended;
    }

    /// How long each sync of its disk takes.
    pub fn set_sync_time(&self, time: Range<Duration>) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        *self.inner.sync_us.lock() = us(time.start)..us(time.end);
    }

    /// Whether something may run on it now; if not yet, `waker` is woken when it may.
    fn lets_run(&self, waker: &Waker) -> bool {
        match &mut *self.inner.life.lock() {
            Life::Runs => true,
            Life::Paused(waiting) => {
                waiting.push(waker.clone());
                false
            }
            Life::Ended => false,
        }
    }

    fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        struct Leave(Option<Host>);
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _leave = Leave(CURRENT.replace(Some(self.clone())));
        act()
    }
}

fn current() -> Option<Host> {
    CURRENT.with_borrow(Clone::clone)
}

/// A future, or a stream, that runs on a host if there is one.
pub struct Hosted<F> {
    host: Option<Host>,
    inner: Pin<Box<F>>,
}

impl<F> Hosted<F> {
    fn poll_inner<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut F>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let inner = self.inner.as_mut();
        match &self.host {
            None => poll(inner, context),
            Some(host) if host.lets_run(context.waker()) => host.enter(|| poll(inner, context)),
            Some(_) => Poll::Pending,
        }
    }
}

impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_inner(context, Future::poll)
    }
}

impl<S: Stream> Stream for Hosted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_inner(context, Stream::poll_next)
    }
}

/// `future` on the host of whoever calls this.
pub(crate) fn hosted<F: Future>(future: F) -> Hosted<F> {
    Hosted { host: current(), inner: Box::pin(future) }
}

/// Waits as long as a sync of the host's disk takes.
pub(crate) async fn sync_time() {
    let Some(host) = current() else { return };
    let range = host.inner.sync_us.lock().clone();
    let us = if range.is_empty() { 0 } else { host.inner.rng.lock().random_range(range) };
    if us > 0 {
        tokio::time::sleep(Duration::from_micros(us)).await;
    }
}

/// Random numbers: of the host, or of the operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Randomness;

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match current() {
            Some(host) => host.inner.rng.lock().fill_bytes(bytes),
            None => rand::rng().fill_bytes(bytes),
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Randomness;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = Latest;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match current() {
            None => TokioRuntime::spawn(future),
            Some(host) => TokioRuntime::spawn(host.run(future)),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Randomness {
        Randomness
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
