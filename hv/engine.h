/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/engine.h - what a CPU engine promises to the rest of the monitor.
 *
 * What      An engine runs guest instructions of one vCPU until something needs the monitor: that is an exit.
 *           LAPIC, IOAPIC, devices and time belong to the monitor and are reached by exits only.
 * Threads   All calls for one vCPU come from its vCPU thread, except kick, which any thread may call.
 * Order     run -> exit -> the monitor fills in the answer (read data) -> run completes the instruction.  The answer
 *           is read from the same object: it lives until the vCPU closes, or until run is given another.  The other calls
 *           may complete the instruction, too, so they come after the answer.
 */
#ifndef HV_ENGINE_H
#define HV_ENGINE_H

#include "base/err.h"
#include "base/types.h"
#include "dsm/dsm.h"
#include "hv/core/cpuid.h"

enum hv_exit_reason {
	HV_EXIT_KICKED,	    /* hv_engine.kick, or a posted interrupt wants a look; nothing to complete */
	HV_EXIT_MMIO,	    /* load or store outside RAM */
	HV_EXIT_PIO,	    /* in or out, one element */
	HV_EXIT_MSR,	    /* an MSR the engine does not own (x2APIC 0x800-0x8ff, TSC_DEADLINE, APIC_BASE, ...) */
	HV_EXIT_HLT,	    /* hlt with nothing to inject; rip is past it */
	HV_EXIT_IRQ_WINDOW, /* irq_window was asked for and the vCPU can take an interrupt now */
	HV_EXIT_SHUTDOWN,   /* triple fault */
	HV_EXIT_LOST,	    /* guest memory cannot be had: the VM is ending (dsm -EPIPE) */
	HV_EXIT_ERROR,	    /* the engine cannot go on: `text` says why */
};

struct hv_exit {
	enum hv_exit_reason reason;
	bool write;	/* MMIO, PIO, MSR: direction seen from the guest */
	uint8_t size;	/* MMIO, PIO: bytes, 1 2 4 8 */
	bool fault;	/* MSR answer: true makes the guest take #GP(0) */
	uint64_t addr;	/* MMIO: gpa; PIO: port; MSR: index */
	uint64_t data;	/* write: value from the guest; read: the monitor's answer */
	const char *text; /* HV_EXIT_ERROR: static text, or the engine's until its next run */
};

/* A segment register as KVM's struct kvm_segment: attr bits as in the descriptor's high word >> 8
 * (type 0-3, s 4, dpl 5-6, p 7, avl 12, l 13, db 14, g 15); limit in bytes, already scaled. */
struct hv_seg {
	uint64_t base;
	uint32_t limit;
	uint16_t sel;
	uint16_t attr;
};

enum hv_gpr { HV_RAX, HV_RCX, HV_RDX, HV_RBX, HV_RSP, HV_RBP, HV_RSI, HV_RDI, HV_R8, HV_R9, HV_R10, HV_R11,
	      HV_R12, HV_R13, HV_R14, HV_R15 };
enum hv_sreg { HV_ES, HV_CS, HV_SS, HV_DS, HV_FS, HV_GS };

/* Everything architectural of one vCPU that the engine owns. The snapshot format is made from this. */
struct hv_cpu_state {
	uint64_t gpr[16], rip, rflags;
	struct hv_seg seg[6], ldt, tr;
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
	uint64_t dr[8]; /* dr4 and dr5 unused */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, misc_enable, mtrr_def_type;
	uint64_t mtrr_fixed[11], mtrr_var[16]; /* 0x250, 0x258-9, 0x268-f; 0x200-f.  Storage: memory is write-back */
	uint64_t tsc_offset; /* guest TSC = host TSC + tsc_offset (host TSC scaled where there is scaling) */
	uint8_t fxsave[512] __attribute__((aligned(16)));
	uint8_t ymm_high[256]; /* upper halves of ymm0-15; zeros where xcr0 has no AVX */
	bool sti_shadow;     /* interrupt inhibition after sti or mov ss */
	bool nmi_blocked;    /* between NMI delivery and iret */
	bool nmi_latched;    /* one more that the engine took waits behind it */
	bool irq_latched;    /* inject_irq gave irq_vector, and the guest has not seen it: set_state leaves it out */
	uint8_t irq_vector;
	/* event that was being delivered or injected and not yet done; 0 = none */
	bool event_valid, event_has_error;
	uint8_t event_vector, event_type; /* type as in VMX: 0 external, 2 NMI, 3 exception, 4 soft int */
	uint32_t event_error;
};

struct hv_vm_config {
	struct dsm *dsm; /* borrowed */
	/* borrowed; leaf 1/0xb APIC ids and OSXSAVE are patched per vCPU; may change until the first run */
	const struct hv_cpuid_entry *cpuid;
	unsigned cpuid_count;
	unsigned vcpus; /* in the whole VM; ids 0 .. vcpus - 1 */
	const struct dsm_range *ram; /* DSM_MAP_UFFD: all of it; for the length of the call */
	unsigned ram_count;
	const struct hv_engine_terms *terms; /* as agreed; for the length of the call */
	/* bt, for runs that can be repeated to the instruction (tests/simvm): called between two blocks, with what the vCPU
	 * has got to, and answers how many blocks may be entered by a loop or a call until the next time, 1 or more; the
	 * guest's TSC is clock_tsc's.  Uses general registers only.  NULL: never, and the guest reads the host's. */
	uint32_t (*pace)(unsigned vcpu, uint64_t rip, const uint64_t gpr[static 16]);
};

/* What a VM asks of an engine on this host. */
struct hv_engine_need {
	bool named;	     /* the user named this engine; else it should be the best one */
	bool several;	     /* the VM spans nodes */
	bool private_tables; /* no two vCPUs share page tables */
	bool choose_faults;  /* else `faults` is wanted */
	enum dsm_faults faults;
	const char *cpu_features; /* words, hv/core/cpuid.h */
};

/* What it gets. */
#define HV_ENGINE_TEXT 640u
struct hv_engine_terms {
	enum dsm_faults faults;	  /* DSM_MAP_UFFD */
	int fault_address;	  /* kvm: enum kvm_address */
	bool tsc_fixed;		  /* the guest's TSC is the host's: tsc_offset has no effect */
	char without[HV_CPUID_WORDS_MAX]; /* of the plain CPU model: not to be had, and not shown */
	char why[HV_ENGINE_TEXT]; /* of a refusal, with what mends it */
};

struct hv_vm;	/* engine-private */
struct hv_vcpu; /* engine-private */

struct hv_engine {
	const char *name;
	enum dsm_mapping mapping; /* how guest code reaches memory */
	bool plain_only;	  /* the plain CPU model, no other features */
	/* 0 when this host can serve; -errno otherwise with *why set to static text. */
	int (*probe)(const char **why);
	/* For this VM, after a probe that did not fail: 0 and the terms, or -errno and terms->why.  NULL: any VM. */
	int (*agree)(const struct hv_engine_need *need, struct hv_engine_terms *terms);
	/* CPUID that a guest on this host can be shown, to HV_CPUID_HOST_MAX entries; their count, 0: not to be had.
	 * NULL when plain_only. */
	unsigned (*host_cpuid)(struct hv_cpuid_entry out[static HV_CPUID_HOST_MAX]);
	int (*vm_open)(const struct hv_vm_config *cfg, struct hv_vm **out);
	void (*vm_close)(struct hv_vm *vm);
	/* Reset state: real mode, rip 0xfff0, cs base 0xffff0000 (SDM vol 3, 9.1.4). APIC id = id. */
	int (*vcpu_open)(struct hv_vm *vm, unsigned id, struct hv_vcpu **out);
	void (*vcpu_close)(struct hv_vcpu *v);
	/*
	 * Between two runs, after the answer: brings the vCPU to where get_state tells all there is.  False: an access of the
	 * instruction under way is still to come; run again, kicked before, answer it, and ask again.
	 */
	bool (*settle)(struct hv_vcpu *v);
	void (*get_state)(struct hv_vcpu *v, struct hv_cpu_state *out);
	int (*set_state)(struct hv_vcpu *v, const struct hv_cpu_state *in); /* -EINVAL: not a state it can run */
	/* Runs until an exit. irq_window: exit as soon as an external interrupt could be taken. */
	void (*run)(struct hv_vcpu *v, struct hv_exit *exit, bool irq_window);
	/* True when an external interrupt can be injected before the next instruction. */
	bool (*irq_ready)(struct hv_vcpu *v);
	void (*inject_irq)(struct hv_vcpu *v, uint8_t vector); /* irq_ready must hold */
	/* Asked when one waits; after a false run exits with HV_EXIT_KICKED as soon as it would be true. */
	bool (*nmi_ready)(struct hv_vcpu *v);
	void (*inject_nmi)(struct hv_vcpu *v);
	/* CR8 as the guest last set it; the monitor mirrors it with the LAPIC's TPR. */
	uint64_t (*get_tpr)(struct hv_vcpu *v);
	void (*set_tpr)(struct hv_vcpu *v, uint64_t cr8);
	/* Makes a running or the next run exit with HV_EXIT_KICKED soon. Any thread, async-signal-safe. */
	void (*kick)(struct hv_vcpu *v);
};

extern const struct hv_engine hv_engine_kvm, hv_engine_bt;
/* NULL-terminated, in order of preference. */
extern const struct hv_engine *const hv_engines[];

#endif
