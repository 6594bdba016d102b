/* A qemu (user mode) plugin that counts executed guest instructions per vCPU. The guest asks for its count by the otherwise senseless
 * system call getpriority(0x5AFE, tag): a line "tag count" is appended to the file named by PACKLIGHT_COUNT, count being that of the asking
 * vCPU. Only the functions used are declared, after qemu's public qemu-plugin.h, version 1 of the interface (qemu 4.2 to 8). */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t id_t_;
struct qemu_plugin_tb;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    union { struct { int smp_vcpus, max_vcpus; } system; };
} qemu_info_t;
extern void qemu_plugin_register_vcpu_tb_trans_cb(id_t_, void (*)(id_t_, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(id_t_, void (*)(id_t_, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                                 uint64_t, uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

#define EXPORT __attribute__((visibility("default")))
#define GETPRIORITY_ARM64 141
#define MAX_VCPUS 4096

EXPORT int qemu_plugin_version = 1;
static struct { uint64_t count; char own_cache_line[56]; } vcpu[MAX_VCPUS];
static FILE *out;

static void executed(unsigned index, void *instructions) { vcpu[index % MAX_VCPUS].count += (uintptr_t)instructions; }

static void translated(id_t_ id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(id_t_ id, unsigned index, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                   uint64_t a7, uint64_t a8)
{
    if (number == GETPRIORITY_ARM64 && a1 == 0x5AFE && out) {
        fprintf(out, "%lu %lu\n", (unsigned long)a2, (unsigned long)vcpu[index % MAX_VCPUS].count);
        fflush(out);
    }
}

EXPORT int qemu_plugin_install(id_t_ id, const qemu_info_t *info, int argc, char **argv)
{
    const char *name = getenv("PACKLIGHT_COUNT");
    out = name ? fopen(name, "a") : NULL;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
