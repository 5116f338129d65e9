/* What a program that uses libfido2 does with the device, over passholdd's socket.
 * Usage: libfido2 SOCKET PIN. Says each claim that holds; the first that does not ends it. */
#include <fido.h>
#include <fido/config.h>
#include <fido/credman.h>
#include <fido/es256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "socket_io.h"

#define RP "example.org"

static const unsigned char CLIENT_DATA[] = "client data, hashed: 32 bytes...";
static const char *socket_path;

static void claim(const char *what, int got, int expected) {
    if (got != expected) {
        printf("NOT: %s: %s (0x%x), not %s\n", what, fido_strerr(got), got, fido_strerr(expected));
        exit(1);
    }
    printf("%s\n", what);
}

static void claim_count(const char *what, int got, int expected) {
    if (got != expected) {
        printf("NOT: %s: %d, not %d\n", what, got, expected);
        exit(1);
    }
    printf("%s\n", what);
}

static fido_dev_t *device(void) {
    fido_dev_t *dev = socket_device(socket_path);
    if (dev == NULL) {
        printf("NOT: the device opens\n");
        exit(1);
    }
    return dev;
}

static int make(fido_dev_t *dev, fido_cred_t *cred, const char *pin, const unsigned char *excluded, size_t len) {
    fido_cred_set_type(cred, COSE_ES256);
    fido_cred_set_clientdata_hash(cred, CLIENT_DATA, 32);
    fido_cred_set_rp(cred, RP, "Example");
    fido_cred_set_user(cred, (const unsigned char *)"alice's handle", 14, "alice", "Alice", NULL);
    fido_cred_set_rk(cred, FIDO_OPT_TRUE);
    fido_cred_set_prot(cred, FIDO_CRED_PROT_UV_OPTIONAL_WITH_ID);
    if (excluded != NULL)
        fido_cred_exclude(cred, excluded, len);
    return fido_dev_make_cred(dev, cred, pin);
}

static fido_assert_t *request(const unsigned char *id, size_t len) {
    fido_assert_t *assert = fido_assert_new();
    fido_assert_set_clientdata_hash(assert, CLIENT_DATA, 32);
    fido_assert_set_rp(assert, RP);
    if (id != NULL)
        fido_assert_allow_cred(assert, id, len);
    return assert;
}

static int retries(fido_dev_t *dev) {
    int left = -1;
    return fido_dev_get_retry_count(dev, &left) == FIDO_OK ? left : -1;
}

/* The PIN is 739184 by now, and there is one passkey. */
static void manage(fido_dev_t *dev, const unsigned char *id, size_t id_len, const es256_pk_t *key) {
    const char *pin = "739184";
    fido_credman_metadata_t *metadata = fido_credman_metadata_new();
    claim("credentials are counted", fido_credman_get_dev_metadata(dev, metadata, pin), FIDO_OK);
    claim_count("there is one", (int)fido_credman_rk_existing(metadata), 1);
    fido_credman_metadata_free(&metadata);
    claim("not without the PIN", fido_credman_del_dev_rk(dev, id, id_len, "000004"), FIDO_ERR_PIN_INVALID);

    fido_credman_rp_t *rp = fido_credman_rp_new();
    claim("sites are listed", fido_credman_get_dev_rp(dev, rp, pin), FIDO_OK);
    claim_count("there is one site", (int)fido_credman_rp_count(rp), 1);
    claim_count("by its ID", strcmp(fido_credman_rp_id(rp, 0), RP), 0);
    fido_credman_rp_free(&rp);

    fido_credman_rk_t *rk = fido_credman_rk_new();
    claim("its passkeys are listed", fido_credman_get_dev_rk(dev, RP, rk, pin), FIDO_OK);
    claim_count("there is one passkey", (int)fido_credman_rk_count(rk), 1);
    const fido_cred_t *cred = fido_credman_rk(rk, 0);
    claim_count("by its ID", memcmp(fido_cred_id_ptr(cred), id, id_len), 0);
    claim_count("with its public key", memcmp(fido_cred_pubkey_ptr(cred), key, 64), 0);
    claim_count("and its protection", fido_cred_prot(cred), FIDO_CRED_PROT_UV_OPTIONAL_WITH_ID);
    fido_credman_rk_free(&rk);

    fido_cred_t *renamed = fido_cred_new();
    fido_cred_set_id(renamed, id, id_len);
    fido_cred_set_user(renamed, (const unsigned char *)"alice's handle", 14, "alice@new", "Alice", NULL);
    claim("its user is renamed", fido_credman_set_dev_rk(dev, renamed, pin), FIDO_OK);
    fido_cred_free(&renamed);
    rk = fido_credman_rk_new();
    claim("which shows", fido_credman_get_dev_rk(dev, RP, rk, pin), FIDO_OK);
    claim_count("by the new name", strcmp(fido_cred_user_name(fido_credman_rk(rk, 0)), "alice@new"), 0);
    fido_credman_rk_free(&rk);

    claim("it is deleted", fido_credman_del_dev_rk(dev, id, id_len, pin), FIDO_OK);
    claim("it cannot be deleted twice", fido_credman_del_dev_rk(dev, id, id_len, pin), FIDO_ERR_NO_CREDENTIALS);
}

/* Signs in with this passkey and these salts, one or two of 32 bytes. */
static fido_assert_t *secrets(fido_dev_t *dev, const fido_cred_t *cred, const char *salts, const char *pin) {
    fido_assert_t *assert = request(fido_cred_id_ptr(cred), fido_cred_id_len(cred));
    fido_assert_set_extensions(assert, FIDO_EXT_HMAC_SECRET | FIDO_EXT_CRED_BLOB | FIDO_EXT_LARGEBLOB_KEY);
    fido_assert_set_hmac_salt(assert, (const unsigned char *)salts, strlen(salts));
    claim("it signs in with extensions", fido_dev_get_assert(dev, assert, pin), FIDO_OK);
    es256_pk_t *key = es256_pk_new();
    es256_pk_from_ptr(key, fido_cred_pubkey_ptr(cred), fido_cred_pubkey_len(cred));
    claim("which are signed", fido_assert_verify(assert, 0, COSE_ES256, key), FIDO_OK);
    es256_pk_free(&key);
    return assert;
}

static void extensions(fido_dev_t *dev, const char *pin) {
    const char *one = "a salt, of thirty-two bytes.....", *both = "a salt, of thirty-two bytes.....and another one of the same size";
    fido_cred_t *cred = fido_cred_new();
    fido_cred_set_extensions(cred, FIDO_EXT_HMAC_SECRET | FIDO_EXT_LARGEBLOB_KEY);
    fido_cred_set_blob(cred, (const unsigned char *)"a blob", 6);
    claim("a credential with extensions is made", make(dev, cred, pin, NULL, 0), FIDO_OK);
    claim("and they are signed", fido_cred_verify_self(cred), FIDO_OK);

    fido_assert_t *first = secrets(dev, cred, one, pin), *second = secrets(dev, cred, both, pin);
    claim_count("a salt yields a secret", (int)fido_assert_hmac_secret_len(first, 0), 32);
    claim_count("two yield two", (int)fido_assert_hmac_secret_len(second, 0), 64);
    const unsigned char *secret = fido_assert_hmac_secret_ptr(second, 0);
    claim_count("the same one for the same salt", memcmp(fido_assert_hmac_secret_ptr(first, 0), secret, 32), 0);
    claim_count("and another one for another", memcmp(secret, secret + 32, 32) != 0, 1);
    claim_count("its blob comes back", (int)fido_assert_blob_len(first, 0), 6);
    claim_count("as it was", memcmp(fido_assert_blob_ptr(first, 0), "a blob", 6), 0);

    claim_count("it has a key for a large blob", (int)fido_cred_largeblob_key_len(cred), 32);
    const unsigned char *key = fido_assert_largeblob_key_ptr(first, 0);
    claim_count("the same when it signs in", memcmp(fido_cred_largeblob_key_ptr(cred), key, 32), 0);
    fido_credman_rk_t *rk = fido_credman_rk_new();
    claim("and when it is listed", fido_credman_get_dev_rk(dev, RP, rk, pin), FIDO_OK);
    claim_count("it is the same", memcmp(fido_cred_largeblob_key_ptr(fido_credman_rk(rk, 0)), key, 32), 0);
    fido_credman_rk_free(&rk);
    /* libfido2 takes none that is shorter than an AES block. */
    const char *small = "a large blob, with the letters 0123456789";
    unsigned char *blob = NULL, big[3800];
    size_t len = 0;
    claim("there is no large blob yet", fido_dev_largeblob_get(dev, key, 32, &blob, &len), FIDO_ERR_NOTFOUND);
    claim("one is set", fido_dev_largeblob_set(dev, key, 32, (const unsigned char *)small, strlen(small), pin), FIDO_OK);
    claim("and got", fido_dev_largeblob_get(dev, key, 32, &blob, &len), FIDO_OK);
    claim_count("as it was", len != strlen(small) || memcmp(blob, small, len), 0);
    free(blob);
    for (size_t n = 0; n < sizeof big; n++) /* Nothing that compresses. */
        big[n] = (unsigned char)((n * 2654435761u ^ n * n * 40503u) >> 7);
    claim("a large one is set", fido_dev_largeblob_set(dev, key, 32, big, sizeof big, pin), FIDO_OK);
    claim("and got", fido_dev_largeblob_get(dev, key, 32, &blob, &len), FIDO_OK);
    claim_count("as it was", len != sizeof big || memcmp(blob, big, len), 0);
    free(blob);
    claim("not with a wrong PIN", fido_dev_largeblob_remove(dev, key, 32, "000004"), FIDO_ERR_PIN_INVALID);
    claim("it is removed", fido_dev_largeblob_remove(dev, key, 32, pin), FIDO_OK);
    claim("and gone", fido_dev_largeblob_get(dev, key, 32, &blob, &len), FIDO_ERR_NOTFOUND);
    claim("its own prompt does as well", fido_dev_largeblob_set(dev, key, 32, big, 100, NULL), FIDO_OK);
    fido_assert_free(&first);
    fido_assert_free(&second);
    fido_cred_free(&cred);
}

static void configure(fido_dev_t *dev, const char *pin) {
    const char *sites[] = {RP}, *longer = "73918420";
    claim("alwaysUv goes off", fido_dev_toggle_always_uv(dev, pin), FIDO_OK);
    claim("and on again", fido_dev_toggle_always_uv(dev, pin), FIDO_OK);
    claim("a site may know the least PIN length", fido_dev_set_pin_minlen_rpid(dev, sites, 1, pin), FIDO_OK);
    fido_cred_t *cred = fido_cred_new();
    fido_cred_set_pin_minlen(cred, 6);
    claim("it asks for it", make(dev, cred, pin, NULL, 0), FIDO_OK);
    claim("is told, and that is signed", fido_cred_verify_self(cred), FIDO_OK);
    fido_cred_free(&cred);
    claim("it does not fall", fido_dev_set_pin_minlen(dev, 5, pin), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("it rises", fido_dev_set_pin_minlen(dev, 8, pin), FIDO_OK);
    fido_assert_t *assert = request(NULL, 0);
    claim("and the PIN must be changed", fido_dev_get_assert(dev, assert, pin), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("to a longer one", fido_dev_set_pin(dev, "7391842", pin), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("then it is", fido_dev_set_pin(dev, longer, pin), FIDO_OK);
    claim("and good again", fido_dev_get_assert(dev, assert, longer), FIDO_OK);
    claim("a change is forced", fido_dev_force_pin_change(dev, longer), FIDO_OK);
    fido_cbor_info_t *info = fido_cbor_info_new();
    claim("of which is told", fido_dev_get_cbor_info(dev, info), FIDO_OK);
    claim_count("with the least length", (int)fido_cbor_info_minpinlen(info), 8);
    fido_cbor_info_free(&info);
    claim("the PIN signs in no more", fido_dev_get_assert(dev, assert, longer), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("the same one will not do", fido_dev_set_pin(dev, longer, longer), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("another one does", fido_dev_set_pin(dev, "93817204", longer), FIDO_OK);
    claim("and signs in", fido_dev_get_assert(dev, assert, "93817204"), FIDO_OK);
    fido_assert_free(&assert);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    socket_path = argv[1];
    const char *pin = argv[2];
    fido_init(0);

    fido_dev_t *dev = device();
    claim_count("it is a FIDO2 device", fido_dev_is_fido2(dev), 1);
    claim_count("it does WINK and CBOR, and no CTAP1", fido_dev_flags(dev), 0x0d);
    claim_count("it has no PIN yet", fido_dev_has_pin(dev), 0);
    fido_cred_t *cred = fido_cred_new();
    claim("without a PIN there is no credential", make(dev, cred, NULL, NULL, 0), FIDO_ERR_PIN_REQUIRED);
    claim("a PIN that is a sequence is refused", fido_dev_set_pin(dev, "123456", NULL), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("a short PIN is refused", fido_dev_set_pin(dev, "49381", NULL), FIDO_ERR_PIN_POLICY_VIOLATION);
    claim("setting a PIN makes the vault", fido_dev_set_pin(dev, pin, NULL), FIDO_OK);
    claim("a second one is not set", fido_dev_set_pin(dev, pin, NULL), FIDO_ERR_PIN_AUTH_INVALID);
    fido_dev_close(dev);
    dev = device();
    claim_count("it has a PIN", fido_dev_has_pin(dev), 1);
    claim_count("it verifies users by itself", fido_dev_has_uv(dev), 1);
    claim_count("8 tries are left", retries(dev), 8);

    fido_cred_free(&cred);
    cred = fido_cred_new();
    claim("a credential is made", make(dev, cred, pin, NULL, 0), FIDO_OK);
    claim("its self attestation verifies", fido_cred_verify_self(cred), FIDO_OK);
    claim_count("its flags say UP, UV, AT and ED", fido_cred_flags(cred), 0xc5);
    const unsigned char *id = fido_cred_id_ptr(cred);
    size_t id_len = fido_cred_id_len(cred);
    es256_pk_t *key = es256_pk_new();
    es256_pk_from_ptr(key, fido_cred_pubkey_ptr(cred), fido_cred_pubkey_len(cred));

    fido_cred_t *second = fido_cred_new();
    claim("an excluded credential keeps another from being made", make(dev, second, pin, id, id_len),
          FIDO_ERR_CREDENTIAL_EXCLUDED);
    fido_cred_free(&second);

    fido_assert_t *assert = request(id, id_len);
    claim("it signs in where it is named", fido_dev_get_assert(dev, assert, pin), FIDO_OK);
    fido_assert_set_uv(assert, FIDO_OPT_TRUE);
    claim("the signature verifies, with the user verified", fido_assert_verify(assert, 0, COSE_ES256, key), FIDO_OK);
    fido_assert_free(&assert);

    assert = request(NULL, 0);
    claim("it signs in where nothing is named", fido_dev_get_assert(dev, assert, pin), FIDO_OK);
    claim_count("by itself", (int)fido_assert_count(assert), 1);
    claim("that signature verifies too", fido_assert_verify(assert, 0, COSE_ES256, key), FIDO_OK);
    claim_count("its user is told", memcmp(fido_assert_user_id_ptr(assert, 0), "alice's handle", 14), 0);
    claim_count("and named", strcmp(fido_assert_user_name(assert, 0), "alice"), 0);
    fido_assert_free(&assert);

    assert = request(NULL, 0);
    fido_assert_set_uv(assert, FIDO_OPT_TRUE);
    claim("its own prompt verifies the user", fido_dev_get_assert(dev, assert, NULL), FIDO_OK);
    claim("that signature verifies as well", fido_assert_verify(assert, 0, COSE_ES256, key), FIDO_OK);
    fido_assert_free(&assert);

    assert = request(id, id_len);
    fido_assert_set_up(assert, FIDO_OPT_FALSE);
    claim("a silent question finds nothing", fido_dev_get_assert(dev, assert, NULL), FIDO_ERR_NO_CREDENTIALS);
    fido_assert_free(&assert);

    assert = request(id, id_len);
    claim("a wrong PIN is refused", fido_dev_get_assert(dev, assert, "739184"), FIDO_ERR_PIN_INVALID);
    claim_count("and counted", retries(dev), 7);
    claim("the right one sets the count back", fido_dev_get_assert(dev, assert, pin), FIDO_OK);
    claim_count("to 8", retries(dev), 8);
    claim("the PIN changes", fido_dev_set_pin(dev, "739184", pin), FIDO_OK);
    claim("the old one is wrong now", fido_dev_get_assert(dev, assert, pin), FIDO_ERR_PIN_INVALID);
    claim("the new one right", fido_dev_get_assert(dev, assert, "739184"), FIDO_OK);
    manage(dev, id, id_len, key);
    claim("what was deleted signs no more", fido_dev_get_assert(dev, assert, "739184"), FIDO_ERR_NO_CREDENTIALS);
    claim("1 wrong PIN", fido_dev_get_assert(dev, assert, "000001"), FIDO_ERR_PIN_INVALID);
    claim("2 wrong PINs", fido_dev_get_assert(dev, assert, "000002"), FIDO_ERR_PIN_INVALID);
    claim("3 wrong PINs, and no more until it starts anew", fido_dev_get_assert(dev, assert, "000003"),
          FIDO_ERR_PIN_AUTH_BLOCKED);
    claim("not even the right one", fido_dev_get_assert(dev, assert, "739184"), FIDO_ERR_PIN_AUTH_BLOCKED);
    claim_count("which is not counted", retries(dev), 5);

    claim("a reset destroys the vault", fido_dev_reset(dev), FIDO_OK);
    fido_dev_close(dev);
    dev = device();
    claim_count("and its PIN", fido_dev_has_pin(dev), 0);
    claim("a new one is set", fido_dev_set_pin(dev, pin, NULL), FIDO_OK);
    fido_dev_close(dev);
    dev = device();
    claim("and finds no credential", fido_dev_get_assert(dev, assert, pin), FIDO_ERR_NO_CREDENTIALS);
    extensions(dev, pin);
    configure(dev, pin);
    fido_assert_free(&assert);
    fido_cred_free(&cred);
    es256_pk_free(&key);
    fido_dev_close(dev);
    return 0;
}
