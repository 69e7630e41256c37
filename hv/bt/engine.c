/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/engine.c - the bt engine's ops table: opening and closing, and the small calls.
 *
 * Owns      Per vCPU: the translation stack with the cpu struct at its top, the code buffer, the block tables.
 * Threads   As hv/engine.h says; kick from any thread.
 * Limits    63 vCPUs of one VM in one process.
 */
#include "base/log.h"
#include "hv/bt/tr.h"

#include <stdlib.h>
#include <sys/mman.h>

#define STACK_SIZE (256u << 10)

struct hv_vm {
	struct bt_vm bt;
};

struct hv_vcpu {
	struct bt_cpu *cpu;
	struct bt_translator *t;
	uint8_t *stack;
	size_t stack_len;
};

static void *map_anon(size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t len)
{
	if (p)
		munmap(p, len);
}

static int bt_probe(const char **why)
{
	void *p = map_anon(PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);

	if (!p) {
		*why = "this host allows no memory that is writable and executable";
		return -EACCES;
	}
	munmap(p, PAGE_SIZE);
	return 0;
}

static int bt_vm_open(const struct hv_vm_config *cfg, struct hv_vm **out)
{
	struct hv_vm *vm;
	int r = tr_signals_init();

	if (r)
		return r;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	vm->bt.cfg = *cfg;
	vm->bt.code = map_anon(BT_VM_GFNS * sizeof(uint64_t), PROT_READ | PROT_WRITE);
	if (!vm->bt.code) {
		free(vm);
		return -ENOMEM;
	}
	pthread_mutex_init(&vm->bt.lock, NULL);
	*out = vm;
	return 0;
}

static void bt_vm_close(struct hv_vm *vm)
{
	unmap((void *)(uintptr_t)vm->bt.code, BT_VM_GFNS * sizeof(uint64_t));
	pthread_mutex_destroy(&vm->bt.lock);
	free(vm);
}

static void decoders_init(struct bt_translator *t)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth width;
	} modes[] = {
		{ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
		{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		{ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
	};

	for (unsigned k = 0; k < ARRAY_LEN(modes); k++) {
		ZydisDecoderInit(&t->decoder[k], modes[k].mode, modes[k].width);
		/* without LZCNT and BMI1 in CPUID these bytes are bsr and bsf, as decode.c treats both */
	}
}

static bool translator_open(struct bt_translator *t)
{
	t->buf = map_anon(TR_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	t->blocks = map_anon(TR_BLOCKS * sizeof(*t->blocks), PROT_READ | PROT_WRITE);
	t->marks = map_anon(TR_MARKS * sizeof(*t->marks), PROT_READ | PROT_WRITE);
	t->starts = map_anon(TR_MARKS, PROT_READ | PROT_WRITE);
	t->page_pool = map_anon(TR_PAGES * sizeof(*t->page_pool), PROT_READ | PROT_WRITE);
	t->sysinsn = map_anon(TR_BLOCKS * sizeof(*t->sysinsn), PROT_READ | PROT_WRITE);
	if (!t->buf || !t->blocks || !t->marks || !t->starts || !t->page_pool || !t->sysinsn)
		return false;
	t->buf_end = t->buf + TR_CODE_SIZE;
	t->e.p = t->buf;
	pthread_mutex_init(&t->lock, NULL);
	decoders_init(t);
	tr_stubs_emit(t);
	return true;
}

static void translator_close(struct bt_translator *t)
{
	if (!t)
		return;
	unmap(t->buf, TR_CODE_SIZE);
	unmap(t->blocks, TR_BLOCKS * sizeof(*t->blocks));
	unmap(t->marks, TR_MARKS * sizeof(*t->marks));
	unmap(t->starts, TR_MARKS);
	unmap(t->page_pool, TR_PAGES * sizeof(*t->page_pool));
	unmap(t->sysinsn, TR_BLOCKS * sizeof(*t->sysinsn));
	unmap(t, sizeof(*t));
}

static int slot_take(struct bt_vm *vm, struct bt_cpu *c)
{
	int slot = -EMFILE;

	pthread_mutex_lock(&vm->lock);
	for (unsigned k = 0; k < ARRAY_LEN(vm->cpus) && slot < 0; k++)
		if (!vm->cpus[k]) {
			vm->cpus[k] = c;
			slot = (int)k;
		}
	pthread_mutex_unlock(&vm->lock);
	return slot;
}

static void vcpu_free(struct hv_vcpu *v)
{
	translator_close(v->t);
	unmap(v->stack, v->stack_len);
	free(v);
}

static bool vcpu_alloc(struct hv_vcpu *v)
{
	size_t room = (sizeof(struct bt_cpu) + PAGE_SIZE - 1) & ~(size_t)(PAGE_SIZE - 1);

	v->stack_len = STACK_SIZE + room;
	v->stack = map_anon(v->stack_len, PROT_READ | PROT_WRITE);
	v->t = map_anon(sizeof(*v->t), PROT_READ | PROT_WRITE);
	if (!v->stack || !v->t || mprotect(v->stack, PAGE_SIZE, PROT_NONE))
		return false;
	v->cpu = (struct bt_cpu *)(void *)(v->stack + STACK_SIZE);
	v->t->cpu = v->cpu;
	v->cpu->tr_state = v->t;
	for (unsigned k = 0; k < BT_JC_SIZE; k++)
		v->cpu->jc[k].key = BT_TLB_NONE;
	return translator_open(v->t);
}

static int bt_vcpu_open(struct hv_vm *vm, unsigned id, struct hv_vcpu **out)
{
	struct hv_vcpu *v = calloc(1, sizeof(*v));
	struct bt_cpu *c;
	int r = -ENOMEM;

	if (!v)
		return -ENOMEM;
	if (!vcpu_alloc(v))
		goto fail;
	c = v->cpu;
	c->vm = &vm->bt;
	c->cfg = &vm->bt.cfg;
	c->id = id;
	c->dsm = vm->bt.cfg.dsm;
	c->alias = dsm_alias(c->dsm);
	r = dsm_reader_open(c->dsm, &c->kick, &c->reader);
	if (r)
		goto fail;
	r = slot_take(&vm->bt, c);
	if (r < 0) {
		dsm_reader_close(c->reader);
		goto fail;
	}
	v->t->slot = (unsigned)r;
	bt_cpu_reset(c);
	*out = v;
	return 0;
fail:
	vcpu_free(v);
	return r;
}

static void bt_vcpu_close(struct hv_vcpu *v)
{
	struct bt_vm *vm = v->cpu->vm;

	tr_kill_all(v->t);
	pthread_mutex_lock(&vm->lock);
	vm->cpus[v->t->slot] = NULL;
	pthread_mutex_unlock(&vm->lock);
	dsm_reader_close(v->cpu->reader);
	vcpu_free(v);
}

static bool bt_settle(struct hv_vcpu *v)
{
	return !v->t->restarts && !v->t->write_done && !v->cpu->held.valid;
}

static void bt_get_state(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	uint32_t waits = v->t->inject;

	bt_state_get(v->cpu, out);
	out->nmi_latched = waits & TR_INJECT_NMI;
	out->irq_latched = waits && !out->nmi_latched;
	out->irq_vector = out->irq_latched ? (uint8_t)waits : 0;
}

static int bt_set_state(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	v->t->inject = in->nmi_latched ? TR_INJECT_NMI | 2 : 0;
	v->t->restarts = v->t->write_done = false;
	v->t->shadow_rip = in->rip;
	return bt_state_set(v->cpu, in);
}

static void bt_run(struct hv_vcpu *v, struct hv_exit *exit, bool irq_window)
{
	tr_run(v->cpu, exit, irq_window);
}

static bool bt_irq_ready(struct hv_vcpu *v)
{
	return tr_irq_ready(v->cpu);
}

static void bt_inject_irq(struct hv_vcpu *v, uint8_t vector)
{
	v->t->inject = TR_INJECT_IRQ | vector;
}

static bool bt_nmi_ready(struct hv_vcpu *v)
{
	return tr_nmi_ready(v->cpu);
}

static void bt_inject_nmi(struct hv_vcpu *v)
{
	v->t->inject = TR_INJECT_NMI | 2;
}

static uint64_t bt_get_tpr(struct hv_vcpu *v)
{
	return v->cpu->cr8;
}

static void bt_set_tpr(struct hv_vcpu *v, uint64_t cr8)
{
	v->cpu->cr8 = cr8;
}

static void bt_kick(struct hv_vcpu *v)
{
	atomic_store(&v->t->kick_wanted, true);
	atomic_store(&v->cpu->kick, 1);
}

const struct hv_engine hv_engine_bt = {
	.name = "bt",
	.mapping = DSM_MAP_TLB,
	.plain_only = true,
	.probe = bt_probe,
	.vm_open = bt_vm_open,
	.vm_close = bt_vm_close,
	.vcpu_open = bt_vcpu_open,
	.vcpu_close = bt_vcpu_close,
	.settle = bt_settle,
	.get_state = bt_get_state,
	.set_state = bt_set_state,
	.run = bt_run,
	.irq_ready = bt_irq_ready,
	.inject_irq = bt_inject_irq,
	.nmi_ready = bt_nmi_ready,
	.inject_nmi = bt_inject_nmi,
	.get_tpr = bt_get_tpr,
	.set_tpr = bt_set_tpr,
	.kick = bt_kick,
};
