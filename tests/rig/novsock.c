/* Preloaded into adbd: without it, it would listen on vsock:5555 too, which a network namespace does not hold back. Needs no header. */
#define AF_VSOCK 40
#define EAFNOSUPPORT 97
#define RTLD_NEXT ((void *)-1L)
extern int *__errno_location(void);
extern void *dlsym(void *, const char *);

int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    if (domain == AF_VSOCK) {
        *__errno_location() = EAFNOSUPPORT;
        return -1;
    }
    if (!real)
        real = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return real(domain, type, protocol);
}
