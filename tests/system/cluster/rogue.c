/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/system/cluster/rogue.c - a peer that misbehaves after it has proved the pool key.
 *
 * What      rogue PORT KEYFILE version|garbage|long|early|silent: connects to the agent on
 *           127.0.0.1:PORT and does what its last argument says; exit status 0 when the agent then
 *           closes the connection.
 * Threads   One.
 */
#include "base/bytes.h"
#include "cluster-config/control.h"
#include "cluster-config/tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void send_msg(SSL *ssl, const struct cc_msg *msg)
{
	uint8_t *frame;
	size_t len;

	if (cc_msg_encode(msg, &frame, &len) || SSL_write(ssl, frame, (int)len) <= 0)
		exit(3);
	free(frame);
}

static void misbehave(SSL *ssl, const char *how)
{
	static const uint8_t garbage[] = { 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t longer[] = { 0xff, 0xff, 0xff, 0x7f, 1, 2, 3 };
	struct cc_msg hello = { .type = CC_MSG_HELLO, .hello = { CC_VERSION, "" } };

	if (!strcmp(how, "version"))
		hello.hello.version = CC_VERSION + 7;
	if (strcmp(how, "silent"))
		send_msg(ssl, &hello);
	if (!strcmp(how, "garbage"))
		SSL_write(ssl, garbage, sizeof(garbage));
	if (!strcmp(how, "long"))
		SSL_write(ssl, longer, sizeof(longer));
	if (!strcmp(how, "early"))
		send_msg(ssl, &(struct cc_msg){ .type = CC_MSG_RUN });
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = 10 };
	struct cc_tls tls;
	struct cc_key key;
	char buf[4096];
	SSL *ssl;
	int fd, n;

	if (argc != 4 || cc_key_load(argv[2], &key) || cc_tls_open(&tls, &key))
		return 2;
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return 2;
	ssl = SSL_new(tls.ctx);
	SSL_set_fd(ssl, fd);
	if (SSL_connect(ssl) != 1 || !cc_tls_proved(ssl))
		return 4;
	misbehave(ssl, argv[3]);
	while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0)
		;
	n = SSL_get_error(ssl, n);
	SSL_free(ssl);
	cc_tls_close(&tls);
	close(fd);
	return n == SSL_ERROR_ZERO_RETURN || n == SSL_ERROR_SSL ||
			       (n == SSL_ERROR_SYSCALL && errno != EAGAIN)
		       ? 0
		       : 1;
}
