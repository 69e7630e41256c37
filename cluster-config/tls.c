/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/tls.c - pool key files and the TLS context; see tls.h.
 *
 * I/O       Key files; the TLS records themselves are conn.c's.
 */
#include "cluster-config/tls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDENTITY "unum-pool"
static const unsigned char cipher_id[2] = { 0x13, 0x02 }; /* TLS_AES_256_GCM_SHA384, RFC 8446 B.4 */
#define CIPHER_NAME "TLS_AES_256_GCM_SHA384"

int cc_key_make(struct cc_key *out)
{
	return getrandom(out->byte, CC_KEY_BYTES, 0) == CC_KEY_BYTES ? 0 : -EIO;
}

void cc_key_hex(const struct cc_key *key, char out[static CC_KEY_HEX + 2])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < CC_KEY_BYTES; i++) {
		out[2 * i] = digits[key->byte[i] >> 4];
		out[2 * i + 1] = digits[key->byte[i] & 15];
	}
	memcpy(out + CC_KEY_HEX, "\n", 2);
}

int cc_key_save(const struct cc_key *key, const char *path)
{
	char hex[CC_KEY_HEX + 2];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err = 0;

	if (fd < 0)
		return -errno;
	cc_key_hex(key, hex);
	if (write(fd, hex, CC_KEY_HEX + 1) != CC_KEY_HEX + 1 || fsync(fd))
		err = -EIO;
	if (close(fd))
		err = -EIO;
	if (err)
		unlink(path);
	return err;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

int cc_key_read(int fd, struct cc_key *out)
{
	char text[CC_KEY_HEX + 2];
	struct cc_key key;
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(text) && (n = read(fd, text + have, sizeof(text) - have)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		have += (size_t)n;
	}
	if (have != CC_KEY_HEX && !(have == CC_KEY_HEX + 1 && text[CC_KEY_HEX] == '\n'))
		return -EINVAL;
	for (unsigned i = 0; i < CC_KEY_BYTES; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		key.byte[i] = (uint8_t)(high << 4 | low);
	}
	*out = key;
	return 0;
}

int cc_key_load(const char *path, struct cc_key *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (st.st_mode & 077)
		err = -EACCES;
	else
		err = cc_key_read(fd, out);
	close(fd);
	return err;
}

/* --- TLS -------------------------------------------------------------------------------------- */

/* The pool key in the form in which OpenSSL wants an external PSK. NULL: no memory. */
static SSL_SESSION *session_make(SSL *ssl)
{
	const struct cc_tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, cipher_id);
	SSL_SESSION *s = SSL_SESSION_new();

	if (s && cipher && SSL_SESSION_set1_master_key(s, t->key.byte, CC_KEY_BYTES) &&
	    SSL_SESSION_set1_id_context(s, (const unsigned char *)IDENTITY, strlen(IDENTITY)) &&
	    SSL_SESSION_set_cipher(s, cipher) &&
	    SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION))
		return s;
	SSL_SESSION_free(s);
	return NULL;
}

static int psk_use(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_len,
		   SSL_SESSION **session)
{
	(void)md; /* our session says which hash; OpenSSL compares the two */
	*session = session_make(ssl);
	*id = (const unsigned char *)IDENTITY;
	*id_len = strlen(IDENTITY);
	return *session != NULL;
}

static int psk_find(SSL *ssl, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
	*session = NULL;
	if (id_len != strlen(IDENTITY) || memcmp(id, IDENTITY, id_len))
		return 1; /* unknown: the handshake then ends for want of a certificate */
	*session = session_make(ssl);
	return *session != NULL;
}

int cc_tls_open(struct cc_tls *t, const struct cc_key *key)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	if (!ctx)
		return -ENOMEM;
	t->key = *key;
	t->ctx = ctx;
	SSL_CTX_set_app_data(ctx, t);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER,
			   NULL); /* and no authority: a certificate never helps */
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_psk_use_session_callback(ctx, psk_use);
	SSL_CTX_set_psk_find_session_callback(ctx, psk_find);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* OpenSSL asks for a context id whenever a server verifies peers, though nothing is ever
	 * resumed here. */
	if (!SSL_CTX_set_session_id_context(ctx, (const unsigned char *)IDENTITY,
					    strlen(IDENTITY)) ||
	    !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(ctx, CIPHER_NAME) || !SSL_CTX_set_num_tickets(ctx, 0)) {
		SSL_CTX_free(ctx);
		return -EIO;
	}
	return 0;
}

void cc_tls_close(struct cc_tls *t)
{
	SSL_CTX_free(t->ctx);
	OPENSSL_cleanse(&t->key, sizeof(t->key));
}

bool cc_tls_proved(const SSL *ssl)
{
	return SSL_version(ssl) == TLS1_3_VERSION && SSL_session_reused(ssl);
}
