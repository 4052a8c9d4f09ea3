// Runs Metal kernels on a CPU: one threadgroup at a time, one fiber for each of its threads where they synchronise.
//
// A fiber yields at a barrier and at each simdgroup function; whoever is ready runs next, in an order that the caller
// picks, so a missing barrier shows as a result that depends on the order. Switches are by hand: ucontext makes two
// system calls a switch.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#error "fibers are written for x86-64 only"
#endif

enum { LANES = 32, STACK = 64 << 10, MAX_THREADS = 1024, SLOT = 64 };

// What a thread knows; msl_entry declares the same.
typedef struct {
  uint64_t buf[31], tg[8], tex[32];
  uint32_t gid[3], tid[3], tgid[3], tpg[3], tptg[3], tgpg[3], lin, lane, sg, nsg;
} Context;

typedef void (*Entry)(Context *);
enum State { READY, AT_SIMD, AT_BARRIER, DONE };

typedef struct {
  void *sp;
  char *stack;
  Context context;
  enum State state;
  void *site; // the return address of what it waits in
  uint64_t mask;
  uint32_t parity;
} Fiber;

// What the lanes of a simdgroup exchange, twice, so that a fast lane cannot overwrite what a slow one has yet to read.
typedef struct {
  _Alignas(64) unsigned char slot[2][LANES][SLOT];
} Simdgroup;

// What a dispatch found; the caller knows these bits.
enum { FINISHED_WHILE_OTHERS_WAIT = 1, DIFFERENT_BARRIERS = 2, DIVERGENT_SIMD = 4 };

static Fiber fibers[MAX_THREADS];
static Simdgroup simdgroups[MAX_THREADS / LANES];
static Fiber *current;
static void *scheduler_sp;
static Entry entry;
static uint64_t seed;

void __msl_switch(void **save, void *load);
__asm__(".globl __msl_switch\n"
        ".type __msl_switch,@function\n"
        "__msl_switch:\n"
        "  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
        "  ret\n"
        ".size __msl_switch,.-__msl_switch\n");

static void wait_in(enum State state, void *site) {
  current->state = state;
  current->site = site;
  __msl_switch(&current->sp, scheduler_sp);
}

static void run_fiber(void) {
  entry(&current->context);
  for (;;) wait_in(DONE, 0);
}

__attribute__((noinline)) void __msl_tg_barrier(void) { wait_in(AT_BARRIER, __builtin_return_address(0)); }
__attribute__((noinline)) void __msl_simd_rendezvous(void) { wait_in(AT_SIMD, __builtin_return_address(0)); }
__attribute__((noinline)) void __msl_simd_put(const void *value, uint32_t bytes) {
  current->parity ^= 1;
  memcpy(simdgroups[current->context.sg].slot[current->parity][current->context.lane], value, bytes);
  wait_in(AT_SIMD, __builtin_return_address(0));
}
const void *__msl_simd_peek(uint32_t lane) { return simdgroups[current->context.sg].slot[current->parity][lane]; }
uint64_t __msl_simd_mask(void) { return current->mask; }
uint32_t __msl_simd_lane(void) { return current->context.lane; }

static uint32_t random_below(uint32_t n) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)(seed % n);
}

// The order of n things: as they are (0), reversed (1), shuffled anew at each call (a seed above 1).
static void arrange(uint32_t *order, uint32_t n, uint32_t kind) {
  for (uint32_t i = 0; i < n; i++) order[i] = kind == 1 ? n - 1 - i : i;
  if (kind < 2) return;
  for (uint32_t i = n; i > 1; i--) {
    uint32_t j = random_below(i), t = order[i - 1];
    order[i - 1] = order[j];
    order[j] = t;
  }
}

static void start(Fiber *f, uint32_t i) {
  if (!f->stack)
    f->stack = mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // Stacks start at different cache sets; the stack pointer is 8 mod 16 behind the return address, as a call leaves it.
  uint64_t *top = (uint64_t *)(f->stack + STACK - 4096 + (i * 7 % 29) * 128);
  top[0] = (uint64_t)&run_fiber;
  top[1] = 0;
  memset(top - 6, 0, 6 * sizeof *top);
  f->sp = top - 6;
  f->state = READY;
}

// Runs the ready fibers of a simdgroup until all of them are done or at a barrier; gives how many finished.
static uint32_t run_simdgroup(uint32_t s, uint32_t n, uint32_t order, uint32_t *found) {
  uint32_t lanes[LANES], finished = 0, base = s * LANES, size = n - base < LANES ? n - base : LANES;
  for (;;) {
    arrange(lanes, size, order);
    for (uint32_t l = 0; l < size; l++) {
      Fiber *f = &fibers[base + lanes[l]];
      if (f->state != READY) continue;
      current = f;
      __msl_switch(&scheduler_sp, f->sp);
      finished += f->state == DONE;
    }
    uint32_t waiting = 0, elsewhere = 0;
    void *site = 0;
    for (uint32_t l = 0; l < size; l++) {
      Fiber *f = &fibers[base + l];
      elsewhere |= f->state == AT_BARRIER;
      if (f->state != AT_SIMD) continue;
      if (!site) site = f->site;
      if (f->site == site) waiting |= 1u << l;
      else elsewhere = 1;
    }
    if (!waiting) return finished;
    if (elsewhere) *found |= DIVERGENT_SIMD;
    for (uint32_t l = 0; l < size; l++)
      if (waiting >> l & 1) {
        fibers[base + l].state = READY;
        fibers[base + l].mask = waiting;
      }
  }
}

// Lets all fibers at a barrier go on, and notes whether it was one barrier and all threads came to it.
static void release(uint32_t n, uint32_t started, uint32_t *found) {
  void *site = 0;
  uint32_t arrived = 0;
  for (uint32_t i = 0; i < n; i++) {
    Fiber *f = &fibers[i];
    if (f->state != AT_BARRIER) continue;
    arrived++;
    if (!site) site = f->site;
    else if (site != f->site) *found |= DIFFERENT_BARRIERS;
    f->state = READY;
  }
  if (arrived && arrived != started) *found |= FINISHED_WHILE_OTHERS_WAIT;
}

// Dispatches a grid of threadgroups. threads_per_grid cuts off what lies outside; scratch holds the bytes of each
// [[threadgroup(i)]] argument. Gives the bits of what it found.
uint32_t __msl_dispatch(Entry e, int synchronises, Context *shared, const uint32_t *groups, const uint32_t *threads,
                        const uint32_t *scratch, uint32_t order, const uint32_t *threads_per_grid) {
  uint32_t found = 0, n = threads[0] * threads[1] * threads[2], count = (n + LANES - 1) / LANES;
  uint32_t arranged[MAX_THREADS / LANES];
  void *memory[8] = {0};
  entry = e;
  seed = 0x9E3779B97F4A7C15ull ^ order;
  for (int i = 0; i < 8; i++)
    if (scratch[i]) shared->tg[i] = (uint64_t)(memory[i] = aligned_alloc(64, (scratch[i] + 63) / 64 * 64));
  uint32_t total = groups[0] * groups[1] * groups[2];
  for (uint32_t at = 0; at < total; at++) {
    uint32_t g = order == 1 ? total - 1 - at : at, live = 0;
    uint32_t group[3] = {g % groups[0], g / groups[0] % groups[1], g / groups[0] / groups[1]};
    for (uint32_t k = 0; k < n; k++) {
      uint32_t i = order == 1 ? n - 1 - k : k;
      Fiber *f = &fibers[i];
      Context *c = &f->context;
      *c = *shared;
      uint32_t thread[3] = {i % threads[0], i / threads[0] % threads[1], i / threads[0] / threads[1]};
      int inside = 1;
      for (int d = 0; d < 3; d++) {
        c->tid[d] = thread[d];
        c->tgid[d] = group[d];
        c->tptg[d] = threads[d];
        c->tgpg[d] = groups[d];
        c->tpg[d] = threads_per_grid[d];
        c->gid[d] = group[d] * threads[d] + thread[d];
        inside &= c->gid[d] < threads_per_grid[d];
      }
      c->lin = i;
      c->lane = i % LANES;
      c->sg = i / LANES;
      c->nsg = count;
      f->parity = 0;
      f->mask = 0;
      f->state = DONE;
      current = f;
      if (!inside) continue;
      if (!synchronises) {
        entry(c);
        continue;
      }
      start(f, i);
      live++;
    }
    uint32_t started = live;
    while (live) {
      arrange(arranged, count, order);
      for (uint32_t s = 0; s < count; s++) live -= run_simdgroup(arranged[s], n, order, &found);
      release(n, started, &found);
    }
  }
  for (int i = 0; i < 8; i++) free(memory[i]);
  return found;
}
