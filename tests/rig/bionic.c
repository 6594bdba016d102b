/* Enough of Android's C library, on top of glibc for aarch64, to start one program built with the NDK: TFLite's benchmark_model. A test
 * aid: it lets our command line, push and parser meet the real program; it is not Android. Built as libc, libm, libdl, liblog, libEGL and
 * libGLESv2, each of which forwards to glibc whatever is not defined here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GLIBC(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Bionic keeps the stack guard at offset 0x28 of the thread pointer; there lies our first thread-local variable, which never changes. */
__attribute__((tls_model("initial-exec"))) __thread char stack_guard_place[96] = {1};

/* stdin, stdout and stderr are elements of an array there. */
char __sF[3][152];
static FILE *stream(void *given)
{
    return given == __sF[0] ? stdin : given == __sF[1] ? stdout : given == __sF[2] ? stderr : given;
}
int vfprintf(FILE *file, const char *format, va_list words) { return GLIBC(vfprintf)(stream(file), format, words); }
int fprintf(FILE *file, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    int done = vfprintf(file, format, words);
    va_end(words);
    return done;
}
int fputs(const char *text, FILE *file) { return GLIBC(fputs)(text, stream(file)); }
int fputc(int letter, FILE *file) { return GLIBC(fputc)(letter, stream(file)); }
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) { return GLIBC(fwrite)(data, size, count, stream(file)); }
int fflush(FILE *file) { return GLIBC(fflush)(stream(file)); }
int fileno(FILE *file) { return GLIBC(fileno)(stream(file)); }
int fclose(FILE *file) { return GLIBC(fclose)(stream(file)); }
int getc(FILE *file) { return GLIBC(getc)(stream(file)); }

int *__errno(void)
{
    extern int *__errno_location(void);
    return __errno_location();
}
size_t __strlen_chk(const char *text, size_t size) { return strlen(text); }
void android_set_abort_message(const char *text) {}
int __system_property_get(const char *key, char *value) { return value[0] = 0; }

/* Log lines go to stderr as "E/tag: text". */
int __android_log_vprint(int priority, const char *tag, const char *format, va_list words)
{
    fprintf((FILE *)__sF[2], "%c/%s: ", "??VDIWEFS"[priority % 9], tag);
    int done = vfprintf((FILE *)__sF[2], format, words);
    fputc('\n', (FILE *)__sF[2]);
    return done;
}
int __android_log_print(int priority, const char *tag, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    int done = __android_log_vprint(priority, tag, format, words);
    va_end(words);
    return done;
}
int __android_log_write(int priority, const char *tag, const char *text) { return __android_log_print(priority, tag, "%s", text); }

/* Numbers of sysconf's questions as bionic's <bits/sysconf.h> has them. */
long sysconf(int question)
{
    static const struct { int bionic, glibc; } known[] = {{39, _SC_PAGESIZE}, {40, _SC_PAGESIZE}, {96, _SC_NPROCESSORS_CONF},
                                                          {97, _SC_NPROCESSORS_ONLN}, {98, _SC_PHYS_PAGES}, {99, _SC_AVPHYS_PAGES}};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].bionic == question)
            return GLIBC(sysconf)(known[i].glibc);
    return GLIBC(sysconf)(question);
}

/* A signal set has 64 bits there, 1024 in glibc. */
int sigfillset(sigset_t *set)
{
    *(uint64_t *)set = ~(uint64_t)0;
    return 0;
}
int pthread_sigmask(int how, const sigset_t *given, sigset_t *before)
{
    sigset_t now, old;
    sigemptyset(&now);
    if (given)
        memcpy(&now, given, sizeof(uint64_t));
    int done = GLIBC(pthread_sigmask)(how, given ? &now : 0, &old);
    if (before)
        memcpy(before, &old, sizeof(uint64_t));
    return done;
}

/* Ten words instead of ten ints. */
struct memory_use { size_t words[10]; };
struct memory_use memory_use(void) __asm__("mallinfo");
struct memory_use memory_use(void)
{
    struct mallinfo2 found = mallinfo2();
    struct memory_use out;
    memcpy(&out, &found, sizeof out);
    return out;
}

/* The program's entry calls __libc_init with the raw stack: argc, argv, environment. Its initialisers are ours to run. */
static int start_up(int count, char **words, char **environment)
{
    struct link_map *map = dlopen(0, RTLD_NOW);
    uintptr_t array = 0, size = 0;
    for (ElfW(Dyn) *entry = map->l_ld; entry->d_tag; entry++) {
        if (entry->d_tag == DT_INIT_ARRAY)
            array = entry->d_un.d_ptr;
        if (entry->d_tag == DT_INIT_ARRAYSZ)
            size = entry->d_un.d_val;
    }
    typedef void (*initialiser)(int, char **, char **);
    initialiser *all = (initialiser *)(map->l_addr + array);
    for (uintptr_t i = 0; array && i < size / sizeof *all; i++)
        if (all[i] && all[i] != (initialiser)-1)
            all[i](count, words, environment);
    return 0;
}
extern int __libc_start_main(int (*)(int, char **, char **), int, char **, void *, void *, void *, void *);
void __libc_init(void *raw, void (*unused)(void), int (*program)(int, char **, char **), void *arrays)
{
    uintptr_t *stack = raw;
    __libc_start_main(program, (int)stack[0], (char **)(stack + 1), start_up, 0, 0, raw);
}

/* No graphics here: whatever is asked of EGL and GLES is answered with nothing, when the program is linked (see android.py). */
long nothing(void) { return 0; }
