/* libfido2 over passholdd's socket: one report a message. */
#pragma once

#include <fido.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPORT 64

static void *socket_open(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int *fd = malloc(sizeof *fd);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    *fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (*fd < 0 || connect(*fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(path);
        free(fd);
        return NULL;
    }
    return fd;
}

static void socket_close(void *handle) {
    close(*(int *)handle);
    free(handle);
}

static int socket_read(void *handle, unsigned char *report, size_t len, int ms) {
    struct pollfd fd = {.fd = *(int *)handle, .events = POLLIN};
    if (len != REPORT || poll(&fd, 1, ms) != 1)
        return -1;
    return (int)recv(fd.fd, report, len, 0);
}

/* libfido2 puts a report number before the report. */
static int socket_write(void *handle, const unsigned char *report, size_t len) {
    if (len != REPORT + 1 || send(*(int *)handle, report + 1, REPORT, 0) != REPORT)
        return -1;
    return (int)len;
}

/* The device behind a socket, opened; NULL if it does not open. */
static fido_dev_t *socket_device(const char *path) {
    static const fido_dev_io_t io = {socket_open, socket_close, socket_read, socket_write};
    fido_dev_t *dev = fido_dev_new();
    if (fido_dev_set_io_functions(dev, &io) == FIDO_OK && fido_dev_open(dev, path) == FIDO_OK)
        return dev;
    fido_dev_free(&dev);
    return NULL;
}
