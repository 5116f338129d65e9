/* A program that uses libfido2, as browsers and OpenSSH do: sets the PIN of a new device, registers and signs in.
 * Usage: device SOCKET PIN */
#include <fido.h>
#include <fido/es256.h>
#include <stdio.h>
#include <stdlib.h>

#include "socket_io.h"

static const unsigned char CLIENT_DATA[32] = {1};

static void must(const char *what, int result) {
    if (result != FIDO_OK) {
        fprintf(stderr, "%s: %s\n", what, fido_strerr(result));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    fido_init(0);
    fido_dev_t *dev = socket_device(argv[1]);
    must("opening the device", dev == NULL ? FIDO_ERR_INTERNAL : FIDO_OK);
    must("setting the PIN", fido_dev_set_pin(dev, argv[2], NULL));
    fido_dev_close(dev);
    dev = socket_device(argv[1]);

    fido_cred_t *cred = fido_cred_new();
    fido_cred_set_type(cred, COSE_ES256);
    fido_cred_set_clientdata_hash(cred, CLIENT_DATA, sizeof CLIENT_DATA);
    fido_cred_set_rp(cred, "mail.example.org", "Mail");
    fido_cred_set_user(cred, (const unsigned char *)"1", 1, "alice", "Alice", NULL);
    fido_cred_set_rk(cred, FIDO_OPT_TRUE);
    must("registering", fido_dev_make_cred(dev, cred, argv[2]));
    must("verifying the registration", fido_cred_verify_self(cred));

    fido_assert_t *assert = fido_assert_new();
    fido_assert_set_clientdata_hash(assert, CLIENT_DATA, sizeof CLIENT_DATA);
    fido_assert_set_rp(assert, "mail.example.org");
    must("signing in", fido_dev_get_assert(dev, assert, argv[2]));
    es256_pk_t *key = es256_pk_new();
    es256_pk_from_ptr(key, fido_cred_pubkey_ptr(cred), fido_cred_pubkey_len(cred));
    must("verifying the signature", fido_assert_verify(assert, 0, COSE_ES256, key));
    fido_dev_close(dev);
    return 0;
}
