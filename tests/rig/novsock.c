/* Preloaded into adbd: without it, it would listen on vsock:5555 too, which a network namespace does not hold back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int socket(int domain, int type, int protocol)
{
    static int (*real)(int, int, int);
    if (domain == 40) { /* AF_VSOCK */
        errno = EAFNOSUPPORT;
        return -1;
    }
    if (!real)
        real = dlsym(RTLD_NEXT, "socket");
    return real(domain, type, protocol);
}
