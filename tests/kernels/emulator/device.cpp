// A CUDA device of one core, under the driver's interface: enough to run a kernel that a host compiler has built.
//
// The threads of a block are fibers. Each runs until it meets a barrier or a shuffle, then one of its warp does, and another
// warp only when all of this one wait; forwards or (EMULATOR_BACKWARDS) backwards, so that a missing barrier shows. Shared
// memory is NaN before every block.
// What CUDA leaves undefined is an error here: a barrier that not all threads meet, a shuffle without all lanes, an address
// that is no multiple of its access, an index outside an array, a write past the shared memory that was asked for.
#include "device.hpp"

#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

namespace {
constexpr int MOST_THREADS = 1024, WARP = 32, SHARED_BYTES = 48 * 1024, GUARD_BYTES = 1024, STACK_BYTES = 64 * 1024;
enum { DONE = 0, INVALID = 1, FAILED = 719 };

struct Barrier {
    int arrived, distance;
    long passed;
};

struct Fiber {
    jmp_buf at;
    bool started, finished;
    Barrier* waits;
    long until;
};

Fiber fibers[MOST_THREADS];
Barrier block_barrier, warp_barriers[MOST_THREADS / WARP];
float lanes[MOST_THREADS];
std::vector<char> stacks;
jmp_buf scheduler;
int running;
const char* failure = "";
void (*entry)(const void*);
const void* arguments;
void* context_stack[8];
int contexts;

[[noreturn]] void fail(const char* why) {
    failure = why;
    _longjmp(scheduler, 2);
}

void wait_at(Barrier& barrier, int threads, int first, int distance) {
    for (int i = first; i < first + threads; i++)
        if (fibers[i].finished) fail("a thread returned before a barrier that others wait at");
    if (barrier.arrived && barrier.distance != distance) fail("the threads of a warp are at different shuffles");
    barrier.distance = distance;
    Fiber& self = fibers[running];
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.passed++;
        return;
    }
    self.waits = &barrier;
    self.until = barrier.passed + 1;
    if (!_setjmp(self.at)) _longjmp(scheduler, 1);
}

void fiber_main() {
    entry(arguments);
    fibers[running].finished = true;
    _longjmp(scheduler, 1);
}

void resume(int thread) {
    running = thread;
    threadIdx = {(unsigned)thread, 0, 0};
    Fiber& fiber = fibers[thread];
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks.data() + (size_t)thread * STACK_BYTES;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}

// One warp runs as far ahead of the others as its barriers allow.
int next_runnable(int last, int threads, bool backwards) {
    for (int i = 0; i < threads; i++) {
        const int warp = (last / WARP + i / WARP) % (threads / WARP), lane = (last + i) % WARP;
        const int thread = warp * WARP + lane;
        const Fiber& fiber = fibers[backwards ? threads - 1 - thread : thread];
        if (!fiber.finished && !(fiber.waits && fiber.waits->passed < fiber.until)) return thread;
    }
    return -1;
}

bool run_block(int threads, bool backwards) {
    memset(fibers, 0, sizeof(Fiber) * threads);
    memset(&block_barrier, 0, sizeof block_barrier);
    memset(warp_barriers, 0, sizeof warp_barriers);
    static volatile int next, left;  // kept over the jumps
    next = 0, left = threads;
    const int came = _setjmp(scheduler);
    if (came == 2) return false;
    if (came == 1 && fibers[running].finished) left = left - 1;
    if (!left) return true;
    next = next_runnable(next, threads, backwards);
    if (next < 0) {
        failure = "threads wait at a barrier that the others never meet";
        return false;
    }
    const int thread = backwards ? threads - 1 - next : next;
    fibers[thread].waits = nullptr;
    resume(thread);
    return false;  // never: a thread comes back by a jump
}
}  // namespace

Index threadIdx, blockIdx, blockDim, gridDim;
alignas(16) float shared[(SHARED_BYTES + GUARD_BYTES) / sizeof(float)];

void __syncthreads() { wait_at(block_barrier, blockDim.x, 0, -1); }
void __syncwarp() { wait_at(warp_barriers[running / WARP], WARP, running / WARP * WARP, 0); }

float __shfl_xor_sync(unsigned mask, float value, int distance) {
    if (mask != 0xffffffffu) fail("only shuffles of whole warps are known here");
    lanes[running] = value;
    Barrier& barrier = warp_barriers[running / WARP];
    wait_at(barrier, WARP, running / WARP * WARP, distance);
    const float other = lanes[running ^ distance];
    wait_at(barrier, WARP, running / WARP * WARP, distance);
    return other;
}

// Called where the compiler was told -fsanitize=alignment,bounds.
extern "C" void __ubsan_handle_type_mismatch_v1(void*, void*) { fail("an address is no multiple of its access"); }
extern "C" void __ubsan_handle_out_of_bounds(void*, void*) { fail("an index is outside its array"); }

#define DRIVER extern "C" __attribute__((visibility("default"))) int

DRIVER cuInit(unsigned) { return DONE; }
DRIVER cuDeviceGet(int* device, int index) { return index ? INVALID : (*device = 0, DONE); }
DRIVER cuDevicePrimaryCtxRetain(void** context, int) { return *context = &contexts, DONE; }
DRIVER cuCtxGetCurrent(void** context) { return *context = contexts ? context_stack[contexts - 1] : nullptr, DONE; }
DRIVER cuCtxPushCurrent_v2(void* context) { return contexts == 8 ? INVALID : (context_stack[contexts++] = context, DONE); }
DRIVER cuCtxPopCurrent_v2(void** context) { return contexts ? (*context = context_stack[--contexts], DONE) : INVALID; }

DRIVER cuGetErrorName(int status, const char** name) {
    *name = status == FAILED ? failure : "an argument is not valid";
    return DONE;
}

// Any code will do but one that says it is broken; that one is answered as a driver answers, in the log.
DRIVER cuModuleLoadDataEx(void** module, const char* code, unsigned count, const int* options, void** values) {
    if (!contexts) return INVALID;
    *module = &contexts;
    if (strcmp(code, "broken")) return DONE;
    for (unsigned i = 0; i < count; i++)
        if (options[i] == 5) strcpy(static_cast<char*>(values[i]), "there is no such code");
    return INVALID;
}

DRIVER cuModuleGetFunction(const void** function, void*, const char* name) {
    for (const Kernel* kernel = kernels; kernel->name; kernel++)
        if (!strcmp(kernel->name, name)) return *function = kernel, DONE;
    return INVALID;
}

DRIVER cuLaunchKernel(
    const Kernel* kernel, unsigned grid, unsigned grid_y, unsigned grid_z, unsigned block, unsigned block_y, unsigned block_z,
    unsigned shared_bytes, void* stream, void** parameters, void** extra
) {
    const bool plain = grid_y == 1 && grid_z == 1 && block_y == 1 && block_z == 1 && !stream && !extra;
    if (!contexts || !plain || !grid || !block || block > MOST_THREADS || block % WARP || shared_bytes > SHARED_BYTES)
        return INVALID;
    stacks.resize((size_t)MOST_THREADS * STACK_BYTES);
    gridDim = {grid, 1, 1}, blockDim = {block, 1, 1};
    entry = kernel->run, arguments = parameters[0];
    const bool backwards = getenv("EMULATOR_BACKWARDS");
    for (unsigned i = 0; i < grid; i++) {
        memset(shared, 0xff, sizeof shared);
        blockIdx = {backwards ? grid - 1 - i : i, 0, 0};
        if (!run_block((int)block, backwards)) return FAILED;
        for (unsigned at = shared_bytes; at < sizeof shared; at++) {
            if (reinterpret_cast<unsigned char*>(shared)[at] != 0xff) {
                failure = "a write past the shared memory that was asked for";
                return FAILED;
            }
        }
    }
    return DONE;
}
