/* A stand-in for libcuda.so.1 on a machine with no GPU: the calls that wm_core/cuda.py makes, with their signatures.
 *
 * Memory of the "device" is memory of its own, copies are done when the stream gets to them (at once, or at the launch
 * of a graph), and every call is noted. tests/fake_tensorrt.py puts "kernels" on a stream with fake_kernel.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*kernel)(void);
typedef struct { void *to; const void *from; size_t size; kernel run; } step;
typedef struct { step steps[256]; int count; } graph;

static char notes[1 << 20];
static char fails[64];
static int fail_code;
static int major_ = 8, minor_ = 9, integrated_, gpus = 1;
static graph *capture;

static int note(const char *name) {
    if (strlen(notes) + strlen(name) + 2 < sizeof notes) { strcat(notes, name); strcat(notes, " "); }
    if (fails[0] && strcmp(fails, name) == 0) { fails[0] = 0; return fail_code; }
    return 0;
}
#define CALL(name) do { int code = note(name); if (code) return code; } while (0)

const char *fake_notes(void) { return notes; }
void fake_reset(void) { notes[0] = 0; fails[0] = 0; major_ = 8; minor_ = 9; integrated_ = 0; gpus = 1; capture = NULL; }
void fake_forget(void) { notes[0] = 0; }
void fake_fail(const char *name, int code) { strncpy(fails, name, sizeof fails - 1); fail_code = code; }
void fake_device(int major, int minor, int integrated, int count) {
    major_ = major; minor_ = minor; integrated_ = integrated; gpus = count;
}
void fake_kernel(kernel run) {
    note("KERNEL");
    if (capture) { step s = {0, 0, 0, run}; capture->steps[capture->count++] = s; } else run();
}

int cuInit(unsigned flags) { CALL("cuInit"); return gpus ? 0 : 100; }
int cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : code == 100 ? "no CUDA-capable device is detected" : "unknown error";
    return 0;
}
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Stand-in GPU"); return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? major_ : attribute == 76 ? minor_ : attribute == 18 ? integrated_ : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { CALL("cuDevicePrimaryCtxRetain"); *context = notes; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { CALL("cuDevicePrimaryCtxRelease_v2"); return 0; }
int cuCtxSetCurrent(void *context) { return context == notes ? 0 : 201; }
int cuStreamCreate(void **stream, unsigned flags) { CALL("cuStreamCreate"); *stream = malloc(8); return 0; }
int cuStreamDestroy_v2(void *stream) { CALL("cuStreamDestroy_v2"); free(stream); return 0; }
int cuStreamSynchronize(void *stream) { CALL("cuStreamSynchronize"); return stream ? 0 : 400; }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) { CALL("cuMemHostAlloc"); *memory = calloc(size, 1); return 0; }
int cuMemHostGetDevicePointer_v2(uint64_t *device, void *memory, unsigned flags) {
    CALL("cuMemHostGetDevicePointer_v2");
    *device = (uint64_t)memory;
    return 0;
}
int cuMemAlloc_v2(uint64_t *memory, size_t size) { CALL("cuMemAlloc_v2"); *memory = (uint64_t)calloc(size, 1); return 0; }
int cuMemFree_v2(uint64_t memory) { CALL("cuMemFree_v2"); free((void *)memory); return 0; }
int cuMemFreeHost(void *memory) { CALL("cuMemFreeHost"); free(memory); return 0; }
static int copy(void *to, const void *from, size_t size) {
    if (capture) { step s = {to, from, size, 0}; capture->steps[capture->count++] = s; } else memcpy(to, from, size);
    return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    CALL("cuMemcpyHtoDAsync_v2");
    return copy((void *)to, from, size);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    CALL("cuMemcpyDtoHAsync_v2");
    return copy(to, (void *)from, size);
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    CALL("cuStreamBeginCapture_v2");
    capture = calloc(1, sizeof(graph));
    return 0;
}
int cuStreamEndCapture(void *stream, void **made) {
    *made = capture;
    capture = NULL;
    CALL("cuStreamEndCapture");
    return 0;
}
int cuGraphInstantiateWithFlags(void **executable, void *made, unsigned long long flags) {
    CALL("cuGraphInstantiateWithFlags");
    *executable = malloc(sizeof(graph));
    memcpy(*executable, made, sizeof(graph));
    return 0;
}
int cuGraphLaunch(void *executable, void *stream) {
    CALL("cuGraphLaunch");
    graph *g = executable;
    for (int k = 0; k < g->count; k++) {
        if (g->steps[k].run) g->steps[k].run(); else memcpy(g->steps[k].to, g->steps[k].from, g->steps[k].size);
    }
    return 0;
}
int cuGraphExecDestroy(void *executable) { CALL("cuGraphExecDestroy"); free(executable); return 0; }
int cuGraphDestroy(void *made) { CALL("cuGraphDestroy"); free(made); return 0; }
