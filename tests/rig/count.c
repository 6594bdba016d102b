/* A qemu (user mode) plugin that counts executed guest instructions per vCPU. The guest asks for its count by the otherwise senseless
 * system call getpriority(0x5AFE, tag): a line "tag count" is appended to the file named by PACKLIGHT_COUNT, count being that of the asking
 * vCPU. Needs no header, so that any C compiler will do: only the functions used are declared, after qemu's public qemu-plugin.h, version 1
 * of the interface (qemu 4.2 to 8). */
typedef unsigned long id;
struct block;
extern void qemu_plugin_register_vcpu_tb_trans_cb(id, void (*)(id, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct block *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(id, void (*)(id, unsigned, long, unsigned long, unsigned long, unsigned long, unsigned long,
                                                              unsigned long, unsigned long, unsigned long, unsigned long));
extern unsigned long qemu_plugin_tb_n_insns(const struct block *);
extern void *fopen(const char *, const char *);
extern int fprintf(void *, const char *, ...);
extern int fflush(void *);
extern char *getenv(const char *);

#define EXPORT __attribute__((visibility("default")))
#define GETPRIORITY_ARM64 141
#define MAX_VCPUS 4096

EXPORT int qemu_plugin_version = 1;
static struct { unsigned long count; char own_cache_line[56]; } vcpu[MAX_VCPUS];
static void *out;

static void executed(unsigned index, void *instructions) { vcpu[index % MAX_VCPUS].count += (unsigned long)instructions; }

static void translated(id plugin, struct block *block)
{
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)qemu_plugin_tb_n_insns(block));
}

static void called(id plugin, unsigned index, long number, unsigned long a1, unsigned long a2, unsigned long a3, unsigned long a4,
                   unsigned long a5, unsigned long a6, unsigned long a7, unsigned long a8)
{
    if (number == GETPRIORITY_ARM64 && a1 == 0x5AFE && out) {
        fprintf(out, "%lu %lu\n", a2, vcpu[index % MAX_VCPUS].count);
        fflush(out);
    }
}

EXPORT int qemu_plugin_install(id plugin, const void *info, int argc, char **argv)
{
    const char *name = getenv("PACKLIGHT_COUNT");
    out = name ? fopen(name, "a") : 0;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
    qemu_plugin_register_vcpu_syscall_cb(plugin, called);
    return 0;
}
