# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor's core on a simulated platform: Python is the machine.

Memory is a sparse buffer, time is a TSC that the caller sets, interrupts land in a small model of the local
APIC, and everything else that the core asks of its machine is recorded. Times are in units of 100 ns of
reference time unless they are called ``tsc``, which are ticks. Nothing here runs by itself: a method returns
when the instruction or event that it stands for is over.

The enumerations and rows come from the tables of csrc/hv/tlfs; tests/core/test_stub.py checks that this file
tells the same.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, TypedDict, type_check_only

class Status(IntEnum):
    """Hypercall status codes (TLFS appendix C)."""

    SUCCESS = 0x0
    INVALID_HYPERCALL_CODE = 0x2
    INVALID_HYPERCALL_INPUT = 0x3
    INVALID_ALIGNMENT = 0x4
    INVALID_PARAMETER = 0x5
    ACCESS_DENIED = 0x6
    INVALID_PARTITION_STATE = 0x7
    OPERATION_DENIED = 0x8
    UNKNOWN_PROPERTY = 0x9
    PROPERTY_VALUE_OUT_OF_RANGE = 0xA
    INSUFFICIENT_MEMORY = 0xB
    PARTITION_TOO_DEEP = 0xC
    INVALID_PARTITION_ID = 0xD
    INVALID_VP_INDEX = 0xE
    NOT_FOUND = 0x10
    INVALID_PORT_ID = 0x11
    INVALID_CONNECTION_ID = 0x12
    INSUFFICIENT_BUFFERS = 0x13
    NOT_ACKNOWLEDGED = 0x14
    INVALID_VP_STATE = 0x15
    ACKNOWLEDGED = 0x16
    INVALID_SAVE_RESTORE_STATE = 0x17
    INVALID_SYNIC_STATE = 0x18
    OBJECT_IN_USE = 0x19
    INVALID_PROXIMITY_DOMAIN_INFO = 0x1A
    NO_DATA = 0x1B
    INACTIVE = 0x1C
    NO_RESOURCES = 0x1D
    FEATURE_UNAVAILABLE = 0x1E
    PARTIAL_PACKET = 0x1F

class Privilege(IntEnum):
    """Bits of a partition's privilege mask (TLFS 5.2.3)."""

    AccessVpRunTimeMsr = 0
    AccessPartitionReferenceCounter = 1
    AccessSynicMsrs = 2
    AccessSyntheticTimerMsrs = 3
    AccessApicMsrs = 4
    AccessHypercallMsrs = 5
    AccessVpIndex = 6
    AccessResetMsr = 7
    AccessStatsMsr = 8
    AccessPartitionReferenceTsc = 9
    AccessGuestIdleMsr = 10
    AccessFrequencyMsrs = 11
    AccessTscInvariantControls = 15
    CreatePartitions = 32
    AccessPartitionId = 33
    AccessMemoryPool = 34
    AdjustMessageBuffers = 35
    PostMessages = 36
    SignalEvents = 37
    CreatePort = 38
    ConnectPort = 39
    AccessStats = 40
    Debugging = 43
    CpuManagement = 44
    ConfigureProfiler = 45

class Feature(IntEnum):
    """Bits of CPUID 0x40000003 EDX (TLFS 3.4)."""

    HypercallXmmInput = 4
    GuestIdleState = 5
    FrequencyMsrs = 8
    CrashMsrs = 10
    DirectSyntheticTimers = 19

class Recommendation(IntEnum):
    """Bits of CPUID 0x40000004 EAX (TLFS 3.4)."""

    UseHypercallForAddressSpaceSwitch = 0
    UseHypercallForLocalFlush = 1
    UseHypercallForRemoteFlush = 2
    UseApicMsrs = 3
    UseResetMsr = 4
    UseRelaxedTiming = 5
    DeprecateAutoEoi = 9
    UseClusterIpi = 10
    UseExProcessorMasks = 11

class Msr(IntEnum):
    """First index of each synthetic MSR or family of them (TLFS appendix H)."""

    GUEST_OS_ID = 0x40000000
    HYPERCALL = 0x40000001
    VP_INDEX = 0x40000002
    RESET = 0x40000003
    VP_RUNTIME = 0x40000010
    TIME_REF_COUNT = 0x40000020
    REFERENCE_TSC = 0x40000021
    TSC_FREQUENCY = 0x40000022
    APIC_FREQUENCY = 0x40000023
    EOI = 0x40000070
    ICR = 0x40000071
    TPR = 0x40000072
    APIC_ASSIST_PAGE = 0x40000073
    SCONTROL = 0x40000080
    SVERSION = 0x40000081
    SIEFP = 0x40000082
    SIMP = 0x40000083
    EOM = 0x40000084
    SINT = 0x40000090
    STIMER = 0x400000B0
    POWER_STATE_TRIGGER_C = 0x400000C1
    POWER_STATE_CONFIG_C = 0x400000D1
    STATS_PAGE = 0x400000E0
    GUEST_IDLE = 0x400000F0
    CRASH_P = 0x40000100
    CRASH_CTL = 0x40000105
    TSC_INVARIANT_CONTROL = 0x40000118

class MessageType(IntEnum):
    """Types of messages that the hypervisor sends (TLFS 14.8.2)."""

    # A member None = 0 (no message) cannot be written here: use MessageType["None"].
    TimerExpired = 0x80000010

class Exit(IntEnum):
    """How a trapped instruction ends."""

    DONE = 0
    RETRY = 1
    IDLE = 2
    UD = 3
    GP = 4
    MC = 5

class OverlayKind(IntEnum):
    """Overlay pages (TLFS 8.1.3)."""

    HYPERCALL = 0
    REFERENCE_TSC = 1
    APIC_ASSIST = 2
    SIEF = 3
    SIM = 4

class PortType(IntEnum):
    """Types of ports (TLFS 14.8.6)."""

    MESSAGE = 1
    EVENT = 2
    MONITOR = 3

GENERATIONS: Final[dict[str, int]]
"""Names of the interface generations, and their bits in the `generations` of a row."""

property_rows: Final[tuple[tuple[str, str, int, int], ...]]
"""What an operator switches by name: kind (privilege, feature, recommendation), name, bit, generations."""

class HypercallRow:
    """A row of the core's hypercall table (TLFS appendix B). Sizes in bytes."""

    @property
    def code(self) -> int:
        """Call code."""

    @property
    def name(self) -> str:
        """The specification's name."""

    @property
    def section(self) -> str:
        """Section of TLFS 2.0a, or "later"."""

    @property
    def generations(self) -> int:
        """Bits of `GENERATIONS`."""

    @property
    def rep(self) -> bool:
        """Whether it is a rep call (TLFS 4.2)."""

    @property
    def fast(self) -> bool:
        """Whether its parameters may be in two registers (TLFS 4.7)."""

    @property
    def xmm(self) -> bool:
        """Whether its parameters may be in the 112-byte block of registers (TLFS 4.7.1)."""

    @property
    def variable(self) -> bool:
        """Whether a variable header may follow the input header."""

    @property
    def implemented(self) -> bool:
        """False: it answers HV_STATUS_INVALID_HYPERCALL_CODE once the checks before that have passed."""

    @property
    def gate(self) -> int:
        """Bit of the privilege that the caller needs, or -1."""

    @property
    def input(self) -> int:
        """Size of the input header."""

    @property
    def input_element(self) -> int:
        """Size of an element of the input list."""

    @property
    def output(self) -> int:
        """Size of the output header."""

    @property
    def output_element(self) -> int:
        """Size of an element of the output list."""

hypercall_rows: Final[tuple[HypercallRow, ...]]
"""All rows, in the order of the counters in `VpState` and of `Trace.row`."""

class MsrRow:
    """A row of the core's MSR table (TLFS appendix H): one register, or a family of consecutive ones."""

    @property
    def index(self) -> int:
        """First index."""

    @property
    def count(self) -> int:
        """Number of registers."""

    @property
    def name(self) -> str:
        """The specification's name without HV_X64_MSR_."""

    @property
    def section(self) -> str:
        """Section of TLFS 2.0a, or "later"."""

    @property
    def generations(self) -> int:
        """Bits of `GENERATIONS`."""

    @property
    def readable(self) -> bool:
        """Whether a read is not #GP."""

    @property
    def writable(self) -> bool:
        """Whether a write is not #GP."""

    @property
    def per_vp(self) -> bool:
        """Whether each VP has its own."""

    @property
    def implemented(self) -> bool:
        """False: every access is #GP."""

    @property
    def privilege(self) -> int:
        """Bit of the privilege that an access needs, or -1."""

    @property
    def feature(self) -> int:
        """Bit of the feature that an access needs, or -1."""

msr_rows: Final[tuple[MsrRow, ...]]
"""All rows, in the order of the counters in `VpState`."""

class ProcessorException(Exception):
    """The guest's instruction ends with an exception."""

class InvalidOpcode(ProcessorException):
    """#UD."""

class GeneralProtectionFault(ProcessorException):
    """#GP."""

class MachineCheck(ProcessorException):
    """#MC."""

class RestoreError(ValueError):
    """A saved stream was refused; the text says why."""

class ContractViolation(AssertionError):
    """The core broke a rule of csrc/hv/platform.h or a promise of hypervisor.h: a bug in the core."""

@type_check_only
class Config(TypedDict):
    """What a machine was made with."""

    privileges: int
    features: int
    recommendations: int
    spinlock_retries: int
    vp_count: int
    gpa_bits: int
    tsc_frequency: int
    apic_frequency: int
    build_number: int
    service_pack: int
    service_number: int
    major_version: int
    minor_version: int
    service_branch: int

@type_check_only
class PartitionState(TypedDict):
    """What an operator sees of the partition."""

    id: int
    guest_os_id: int
    hypercall_msr: int
    reference_tsc_msr: int
    crash_control: int
    crash_parameters: list[int]
    reference_time: int
    tsc_scale: int
    tsc_offset: int
    tsc_sequence: int
    privileges: int
    features: int
    recommendations: int
    tsc_page_enabled: bool
    hypercall_page_enabled: bool

@type_check_only
class TimerState(TypedDict):
    """What an operator sees of a synthetic timer; `due` is None while it is not armed."""

    config: int
    count: int
    due: int | None
    message_pending: bool
    expirations: int

@type_check_only
class VpState(TypedDict):
    """What an operator sees of a VP; `queued` and `sint` by SINT, counters by row of the tables."""

    apic_assist_page: int
    scontrol: int
    siefp: int
    simp: int
    sint: list[int]
    queued: list[int]
    timers: list[TimerState]
    run_time: int
    hypercalls: list[int]
    unknown_hypercalls: int
    msr_reads: list[int]
    msr_writes: list[int]
    unknown_msrs: int
    messages_delivered: int
    events_signaled: int
    interrupts_requested: int
    auto_eois: int
    assisted_eois: int

@type_check_only
class PortState(TypedDict):
    """A port; `vp` is None for HV_ANY_VP, `queued` counts messages that wait for a slot."""

    port_id: int
    type: PortType
    sint: int
    vp: int | None
    base_flag: int
    flag_count: int
    post_count: int
    queued: int

@type_check_only
class ConnectionState(TypedDict):
    """A connection and the port that it was made for."""

    connection_id: int
    port_id: int

@type_check_only
class ApicState(TypedDict):
    """A VP's local APIC; `irr` and `isr` are lists of vectors."""

    enabled: bool
    tpr: int
    icr: int
    irr: list[int]
    isr: list[int]

@type_check_only
class Flush(TypedDict):
    """A flush of translations; `ranges` are (page-aligned GVA, pages), or None for everything."""

    caller: int
    vps: list[int]
    keep_global: bool
    ranges: list[tuple[int, int]] | None

@type_check_only
class Crash(TypedDict):
    """A crash that the guest reported."""

    vp: int
    parameters: list[int]
    message: bytes | None

@type_check_only
class Trace(TypedDict):
    """A traced hypercall; `row` is an index of `hypercall_rows`, or -1."""

    vp: int
    row: int
    input: int
    result: int

class HypercallResult:
    """What a hypercall instruction did to its caller."""

    @property
    def exit(self) -> Exit:
        """How the instruction ended."""

    @property
    def status(self) -> Status | None:
        """The status code, or None when the instruction did not retire."""

    @property
    def reps_completed(self) -> int:
        """Reps completed, counted from the start of the list (TLFS 4.8)."""

    @property
    def result(self) -> int:
        """The whole 64-bit result value."""

    @property
    def retries(self) -> int:
        """How often `Machine.call` executed the instruction again."""

    @property
    def registers(self) -> list[int]:
        """The general registers afterwards, in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15."""

class Machine:
    """A machine made of numbers, with the hypervisor's core under its guest.

    Args:
        generation: "current" or "2008r2".
        vps: Number of VPs.
        memory: Bytes of RAM from address 0; a page takes host memory when it is first written.
        tsc_frequency: Hz. The default makes 256 ticks exactly one unit of reference time.
        apic_frequency: Hz.
        privileges: HV_PARTITION_PRIVILEGE_MASK (TLFS 5.2.3); None means the generation's default.
        features: CPUID 0x40000003 EDX; likewise.
        recommendations: CPUID 0x40000004 EAX; likewise.
        spinlock_retries: CPUID 0x40000004 EBX; likewise.
        gpa_bits: The GPA space ends at ``1 << gpa_bits``.
        hypercall_code: The start of the hypercall page.

    Raises:
        ValueError: A machine like that is not possible; the text says why.

    Methods that name a VP raise IndexError when there is none of that index, and every method that enters the
    core raises ContractViolation when the core broke a rule.
    """

    def __init__(
        self,
        generation: str = "current",
        *,
        vps: int = 1,
        memory: int = 1 << 24,
        tsc_frequency: int = 2_560_000_000,
        apic_frequency: int = 1_000_000_000,
        privileges: int | None = None,
        features: int | None = None,
        recommendations: int | None = None,
        spinlock_retries: int | None = None,
        gpa_bits: int = 36,
        hypercall_code: bytes = ...,
    ) -> None: ...

    # -- Instructions of the guest --

    def cpuid(self, leaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX and EDX of a leaf in 0x40000000..0x4000FFFF (TLFS 3.3)."""

    @property
    def tsc_is_invariant(self) -> bool:
        """Whether the guest asked for an invariant TSC."""

    def rdmsr(self, vp: int, index: int) -> int:
        """Read a synthetic MSR. A read that makes the VP idle is recorded in `idles`.

        Raises:
            GeneralProtectionFault: The register cannot be read.
        """

    def wrmsr(self, vp: int, index: int, value: int) -> None:
        """Write a synthetic MSR.

        Raises:
            GeneralProtectionFault: The register cannot be written, or not with this value.
        """

    def hypercall(
        self,
        vp: int,
        input: int,
        rdx: int = 0,
        r8: int = 0,
        *,
        xmm: bytes = b"",
        long_mode: bool = True,
        legal: bool = True,
        registers: Sequence[int] | None = None,
    ) -> HypercallResult:
        """Execute the hypercall instruction once (TLFS 4.7).

        Args:
            vp: The caller.
            input: The hypercall input value, in RCX or EDX:EAX.
            rdx: First parameter or GPA of the input, in RDX or EBX:ECX.
            r8: Second parameter or GPA of the output, in R8 or EDI:ESI.
            xmm: XMM0 to XMM5, filled up with zeros.
            long_mode: Whether the caller is a 64-bit caller.
            legal: Whether it is in protected mode at CPL 0 (TLFS 4.5).
            registers: The 16 general registers before the above are put into them.
        """

    def call(
        self, vp: int, input: int, rdx: int = 0, r8: int = 0, *, xmm: bytes = b"", long_mode: bool = True
    ) -> HypercallResult:
        """Execute the hypercall instruction until it retires or faults (TLFS 4.3)."""

    # -- Memory --

    def read(self, gpa: int, size: int) -> bytes:
        """Read as the guest does: overlays are seen, where nothing is mapped there are ones.

        Raises:
            MachineCheck: A page may not be read (TLFS 11.8).
        """

    def write(self, gpa: int, data: bytes) -> None:
        """Write as the guest does: overlays are seen, where nothing is mapped data is dropped.

        Raises:
            MachineCheck: A page may not be written (TLFS 11.8).
            GeneralProtectionFault: A page is a read-only overlay (TLFS 4.12).
        """

    def read_ram(self, gpa: int, size: int) -> bytes:
        """Read RAM under any overlay, inside one page, whatever its rights.

        Raises:
            ValueError: There is no RAM, or the range crosses a page.
        """

    def map(self, gpa: int, size: int = 4096, *, readable: bool = True, writable: bool = True) -> None:
        """Map RAM with these rights to every page that the range touches."""

    def unmap(self, gpa: int, size: int = 4096) -> None:
        """Leave every page that the range touches without anything."""

    @property
    def overlays(self) -> list[tuple[OverlayKind, int, int]]:
        """Overlays that are shown: kind, VP, GPA; the topmost last."""

    # -- Time --

    tsc: int
    """The TSC as every VP reads it. Setting it lets time pass without timers being looked at."""

    def advance(self, nano100: int) -> None:
        """Let time pass; timers are called when the TSC has reached their time."""

    def advance_tsc(self, ticks: int) -> None:
        """Let time pass by ticks of the TSC."""

    def fire_due_timers(self) -> None:
        """Call timers whose time has come."""

    def timer_expired(self, vp: int, timer: int) -> None:
        """Call a timer now, early or not."""

    def timer_tsc(self, vp: int, timer: int) -> int | None:
        """The TSC at which the core wants a timer called, or None. Timer 4 retries messages."""

    @property
    def reference_time(self) -> int:
        """Reference time (TLFS 15.1.2)."""

    def set_run_time(self, vp: int, nano100: int) -> None:
        """Say how long a VP has run (TLFS 10.3.2)."""

    # -- Local APICs --

    def apic(self, vp: int) -> ApicState:
        """State of a VP's local APIC, as it is without asking the assist page."""

    def set_apic_enabled(self, vp: int, enabled: bool) -> None:
        """Switch the software enable of a local APIC."""

    def request_interrupt(self, vp: int, vector: int) -> None:
        """Request an edge-triggered interrupt, as a device does."""

    def accept(self, vp: int) -> int | None:
        """Have the VP accept its highest requested interrupt; None when its priority forbids or none is there."""

    def eoi(self, vp: int) -> None:
        """End the highest interrupt in service by the APIC's memory-mapped register."""

    def assisted_eoi(self, vp: int) -> bool:
        """End an interrupt as TLFS 13.3.4.1 recommends; whether that needed no write of the EOI MSR."""

    # -- Operator --

    def operator_create_port(
        self,
        port_id: int,
        port_type: int,
        sint: int,
        *,
        vp: int | None = None,
        base_flag: int = 0,
        flag_count: int = 0,
    ) -> Status:
        """Create a port of the partition (TLFS 14.9.1); `vp` None means HV_ANY_VP."""

    def operator_delete_port(self, port_id: int) -> Status:
        """Delete a port and the messages queued from it (TLFS 14.9.2)."""

    def operator_connect_port(self, connection_id: int, port_id: int) -> Status:
        """Connect the partition to its own port (TLFS 14.9.3)."""

    def operator_disconnect_port(self, connection_id: int) -> Status:
        """Break a connection (TLFS 14.9.6)."""

    def operator_post_message(self, port_id: int, message_type: int, payload: bytes) -> Status:
        """Post to a port as HvPostMessage does (TLFS 14.9.7)."""

    def operator_signal_event(self, port_id: int, flag: int) -> Status:
        """Signal at a port as HvSignalEvent does (TLFS 14.9.8)."""

    def ports(self) -> list[PortState]:
        """All ports."""

    def connections(self) -> list[ConnectionState]:
        """All connections."""

    def partition_state(self) -> PartitionState:
        """State of the partition."""

    def vp_state(self, vp: int) -> VpState:
        """State of a VP."""

    def set_trace(self, on: bool) -> None:
        """Record hypercalls in `traces`, or stop it."""

    # -- What the core asked of the machine, in order --

    @property
    def interrupts(self) -> list[tuple[int, int]]:
        """Interrupts requested by the core: VP, vector."""

    @property
    def lost_interrupts(self) -> list[tuple[int, int]]:
        """The same, of VPs whose APIC was disabled."""

    @property
    def flushes(self) -> list[Flush]:
        """Flushes of translations."""

    @property
    def crashes(self) -> list[Crash]:
        """Crashes that the guest reported."""

    @property
    def traces(self) -> list[Trace]:
        """Traced hypercalls."""

    @property
    def overlay_changes(self) -> list[tuple[OverlayKind, int, int | None]]:
        """Overlays shown at a GPA or, None, nowhere: kind, VP, GPA."""

    @property
    def cr3_loads(self) -> list[tuple[int, int]]:
        """Loads of CR3: VP, value."""

    @property
    def icr_writes(self) -> list[tuple[int, int]]:
        """Writes of the ICR: VP, value."""

    @property
    def eoi_writes(self) -> list[tuple[int, int]]:
        """EOIs by MSR: VP, value."""

    @property
    def spin_waits(self) -> list[int]:
        """VPs that notified a long spin wait."""

    @property
    def idles(self) -> list[int]:
        """VPs that went to sleep."""

    @property
    def resets(self) -> int:
        """How often the guest asked for a reset; `reset` is the reset itself."""

    @property
    def cpuid_changes(self) -> int:
        """How often architectural CPUID changed its answer."""

    def clear_records(self) -> None:
        """Forget all of these."""

    # -- State --

    @property
    def config(self) -> Config:
        """What the machine was made with; after a restore the TSC frequency is the stream's."""

    def reset(self) -> None:
        """Reset the machine."""

    def save(self) -> bytes:
        """The core's state as a versioned stream."""

    def restore(self, stream: bytes) -> None:
        """Take over a saved stream.

        Raises:
            RestoreError: It was refused; the core's state is that of a reset.
        """

    def migrate(self, *, tsc_frequency: int | None = None) -> Machine:
        """Another machine in the same state: RAM, APICs and TSC copied, the core saved and restored.

        Args:
            tsc_frequency: What the new machine's frequency was before it took over the stream's.
        """

def default_config(generation: str) -> Config:
    """What a partition with role=guest has by default; counts, bits and frequencies are 0."""

def status_name(status: int) -> str | None:
    """The specification's name of a status code, or None when it has none."""

def fuzz(data: bytes) -> int:
    """Be the hostile guest that these bytes describe; returns the number of steps taken.

    Raises:
        ContractViolation: The core broke a rule or a promise.
    """
