/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_conn.c - connections that prove the pool key, and those that do
 * not; key files. */
#include "base/clock.h"
#include "cluster-config/conn.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct end {
	struct cc_conn *conn;
	struct cc_tls tls;
	unsigned opened, messages, closed;
	bool garbage;
	uint64_t bytes;
	char why[200];
};

static void on_open(void *arg)
{
	((struct end *)arg)->opened++;
}

static void on_message(void *arg, const struct cc_msg *msg)
{
	struct end *e = arg;

	e->messages++;
	if (msg->type == CC_MSG_CONSOLE)
		e->bytes += msg->console.len;
}

static void on_close(void *arg, const char *why, bool garbage)
{
	struct end *e = arg;

	e->closed++;
	e->garbage = garbage;
	snprintf(e->why, sizeof(e->why), "%s", why);
}

static const struct cc_conn_ops ops = { on_open, on_message, on_close };

struct pair {
	struct cc_loop loop;
	struct end client, server;
	int raw_fd; /* -1, or the client's side without any TLS */
};

static void pair_open(struct pair *p, const char *client_key, const char *server_key)
{
	struct cc_key key = { 0 };
	int fd[2];

	signal(SIGPIPE, SIG_IGN);
	memset(p, 0, sizeof(*p));
	p->raw_fd = -1;
	cr_assert_eq(cc_loop_open(&p->loop), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	memcpy(key.byte, server_key, strlen(server_key));
	cr_assert_eq(cc_tls_open(&p->server.tls, &key), 0);
	cr_assert_eq(cc_conn_make(&p->loop, fd[0], CC_CONN_TLS_SERVER, &p->server.tls, &ops,
				  &p->server, &p->server.conn),
		     0);
	if (!client_key) {
		p->raw_fd = fd[1];
		return;
	}
	memset(&key, 0, sizeof(key));
	memcpy(key.byte, client_key, strlen(client_key));
	cr_assert_eq(cc_tls_open(&p->client.tls, &key), 0);
	cr_assert_eq(cc_conn_make(&p->loop, fd[1], CC_CONN_TLS_CLIENT, &p->client.tls, &ops,
				  &p->client, &p->client.conn),
		     0);
}

static void pair_close(struct pair *p)
{
	cc_conn_free(p->client.conn);
	cc_conn_free(p->server.conn);
	if (p->raw_fd >= 0)
		close(p->raw_fd);
	else
		cc_tls_close(&p->client.tls);
	cc_tls_close(&p->server.tls);
	cc_loop_close(&p->loop);
}

/* Until nothing happens for 100 ms. */
static void pump(struct pair *p)
{
	while (cc_loop_once(&p->loop, 100))
		;
}

Test(conn, same_key_opens_and_carries_messages, .timeout = 20)
{
	struct pair p;

	pair_open(&p, "secret", "secret");
	cc_conn_send(p.client.conn,
		     &(struct cc_msg){ .type = CC_MSG_RUN }); /* before the handshake: waits */
	pump(&p);
	cr_expect_eq(p.client.opened, 1);
	cr_expect_eq(p.server.opened, 1);
	cr_expect_eq(p.server.messages, 1);
	cc_conn_send(p.server.conn, &(struct cc_msg){ .type = CC_MSG_READY });
	pump(&p);
	cr_expect_eq(p.client.messages, 1);
	cc_conn_free(p.client.conn);
	p.client.conn = NULL;
	pump(&p);
	cr_expect_eq(p.server.closed, 1);
	cr_expect_not(p.server.garbage, "%s", p.server.why);
	pair_close(&p);
}

Test(conn, another_key_never_opens, .timeout = 20)
{
	struct pair p;

	pair_open(&p, "secret", "other");
	cc_conn_send(p.client.conn, &(struct cc_msg){ .type = CC_MSG_RUN });
	pump(&p);
	cr_expect_eq(p.client.opened + p.server.opened, 0);
	cr_expect_eq(p.server.messages, 0);
	cr_expect_eq(p.client.closed, 1);
	cr_expect_eq(p.server.closed, 1);
	cr_expect(p.client.garbage && p.server.garbage);
	pair_close(&p);
}

Test(conn, plain_text_never_opens, .timeout = 20)
{
	static const char text[] = "GET / HTTP/1.0\r\n\r\n";
	struct pair p;

	pair_open(&p, NULL, "secret");
	cr_assert_eq(write(p.raw_fd, text, sizeof(text)), (ssize_t)sizeof(text));
	pump(&p);
	cr_expect_eq(p.server.opened, 0);
	cr_expect_eq(p.server.closed, 1);
	cr_expect(p.server.garbage);
	pair_close(&p);
}

/* A TLS client without the key, which would take any certificate. */
Test(conn, tls_without_the_key_never_opens, .timeout = 20)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct pair p;
	SSL *ssl;

	pair_open(&p, NULL, "secret");
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, p.raw_fd);
	SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	for (unsigned i = 0; i < 4; i++) {
		cr_expect_neq(SSL_connect(ssl), 1);
		pump(&p);
	}
	cr_expect_eq(p.server.opened, 0);
	cr_expect_eq(p.server.closed, 1);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	pair_close(&p);
}

Test(conn, much_waits_in_memory_and_arrives_whole, .timeout = 60)
{
	static uint8_t data[CC_CONSOLE_MAX];
	struct pair p;

	pair_open(&p, "secret", "secret");
	pump(&p);
	cc_conn_pause(p.server.conn, true);
	for (unsigned i = 0; i < 64; i++)
		cc_conn_send(p.client.conn, &(struct cc_msg){ .type = CC_MSG_CONSOLE,
							      .console = { data, sizeof(data) } });
	pump(&p);
	cr_expect(cc_conn_busy(p.client.conn));
	cr_expect_eq(p.server.messages, 0, "paused");
	cc_conn_pause(p.server.conn, false);
	pump(&p);
	cr_expect_eq(p.server.bytes, 64 * sizeof(data));
	cr_expect_not(cc_conn_busy(p.client.conn));
	pair_close(&p);
}

/* A slice says its last words and closes while its agent is about to send: the words count. */
Test(conn, last_words_are_heard_though_nobody_listens, .timeout = 20)
{
	struct cc_msg words = { .type = CC_MSG_PROGRESS, .progress = { "last words" } };
	struct end agent = { 0 };
	struct cc_loop loop;
	uint8_t *frame;
	size_t len;
	int fd[2];

	cr_assert_eq(cc_loop_open(&loop), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	cr_assert_eq(cc_conn_make(&loop, fd[0], CC_CONN_PLAIN, NULL, &ops, &agent, &agent.conn), 0);
	cr_assert_eq(cc_msg_encode(&words, &frame, &len), 0);
	cr_assert_eq(write(fd[1], frame, len), (ssize_t)len);
	cr_assert_eq(write(fd[1], frame, len), (ssize_t)len);
	close(fd[1]);
	cc_conn_send(agent.conn, &(struct cc_msg){ .type = CC_MSG_PING });
	cc_conn_send(agent.conn, &(struct cc_msg){ .type = CC_MSG_STOP });
	while (cc_loop_once(&loop, 100))
		;
	cr_expect_eq(agent.messages, 2);
	cr_expect_eq(agent.closed, 1);
	cr_expect_not(agent.garbage);
	cc_conn_free(agent.conn);
	cc_loop_close(&loop);
	free(frame);
}

Test(conn, more_than_the_bound_breaks_it, .timeout = 60)
{
	static uint8_t data[CC_CONSOLE_MAX];
	struct pair p;

	pair_open(&p, "secret", "secret");
	pump(&p);
	cc_conn_pause(p.server.conn, true);
	for (unsigned i = 0; i < 2 * CC_CONN_OUT_MAX / sizeof(data); i++)
		cc_conn_send(p.client.conn, &(struct cc_msg){ .type = CC_MSG_CONSOLE,
							      .console = { data, sizeof(data) } });
	pump(&p);
	cr_expect_eq(p.client.closed, 1);
	cr_expect_str_eq(p.client.why, "too much waits to be sent");
	pair_close(&p);
}

/* --- key files -------------------------------------------------------------------------------- */

Test(key, made_saved_and_loaded)
{
	char folder[] = "/tmp/unum-key-XXXXXX", path[64];
	struct cc_key a, b, c;
	struct stat st;

	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/pool.key", folder);
	cr_assert_eq(cc_key_make(&a), 0);
	cr_assert_eq(cc_key_make(&c), 0);
	cr_expect_neq(memcmp(&a, &c, sizeof(a)), 0);
	cr_assert_eq(cc_key_save(&a, path), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
	cr_assert_eq(cc_key_load(path, &b), 0);
	cr_expect_eq(memcmp(&a, &b, sizeof(a)), 0);
	cr_expect_eq(cc_key_save(&c, path), -EEXIST);
	cr_assert_eq(chmod(path, 0640), 0);
	cr_expect_eq(cc_key_load(path, &b), -EACCES);
	unlink(path);
	cr_expect_eq(cc_key_load(path, &b), -ENOENT);
	rmdir(folder);
}

Test(key, what_is_not_a_key)
{
	static const char good[] =
		"00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
	static const struct {
		const char *before, *after;
		bool fine;
	} cases[] = { { "", "", true },
		      { "", "\n", true },
		      { "", "\n\n", false },
		      { "0", "", false },
		      { "", "00", false } };

	for (unsigned i = 0; i < ARRAY_LEN(cases) + 2; i++) {
		char text[100] = "";
		struct cc_key key;
		int fd[2], err;
		bool fine = i < ARRAY_LEN(cases) && cases[i].fine;

		if (i < ARRAY_LEN(cases))
			snprintf(text, sizeof(text), "%s%s%s", cases[i].before, good,
				 cases[i].after);
		else if (i == ARRAY_LEN(cases))
			snprintf(text, sizeof(text), "%.63sg", good);
		cr_assert_eq(pipe(fd), 0);
		cr_assert_eq(write(fd[1], text, strlen(text)), (ssize_t)strlen(text));
		close(fd[1]);
		err = cc_key_read(fd[0], &key);
		close(fd[0]);
		cr_expect_eq(err, fine ? 0 : -EINVAL, "case %u", i);
		if (!err)
			cr_expect_eq(key.byte[31], 0xff);
	}
}
