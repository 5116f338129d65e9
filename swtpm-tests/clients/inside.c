/* Preloaded into passholdd, this makes any system call from inside it: an intruder that has taken it over could do no more.
   At SIGUSR2 it reads an order from the file "order" in the folder that INSIDE names, and adds what came of it to "outcomes". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Arguments from here on are places in the order's data. */
#define DATA 0x7e57000000000000L

struct order {
    long thread, number, arguments[6];
    char data[1024];
};

static int orders, outcomes;

static void obey(int signal)
{
    static struct order order;
    int kept = errno;
    if (pread(orders, &order, sizeof order, 0) != sizeof order)
        abort();
    if (order.thread != gettid()) {
        syscall(SYS_tgkill, getpid(), order.thread, signal);
    } else {
        long *a = order.arguments;
        for (int i = 0; i < 6; i++)
            if ((a[i] & ~0xffffL) == DATA)
                a[i] = (long)&order.data[a[i] & 0xffff];
        long outcome = syscall(order.number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (outcome == -1)
            outcome = -errno;
        if (write(outcomes, &outcome, sizeof outcome) != sizeof outcome)
            abort();
    }
    errno = kept;
}

__attribute__((constructor)) static void enter(void)
{
    char path[512];
    const char *folder = getenv("INSIDE");
    struct sigaction action = {.sa_handler = obey, .sa_flags = SA_RESTART};
    snprintf(path, sizeof path, "%s/order", folder);
    orders = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/outcomes", folder);
    outcomes = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (orders < 0 || outcomes < 0 || sigaction(SIGUSR2, &action, NULL))
        abort();
}
