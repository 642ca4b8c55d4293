package issue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
)

// Contact is the contact of this member with the others. It is called from many goroutines.
type Contact interface {
	// LastContact returns the time of the last contact to the leader, or of leading with a quorum. It is zero before
	// that.
	LastContact() time.Time
	// ClockSane reports whether this member's clock is within minutes of those of a majority. It is false until known.
	ClockSane() bool
	// ClockPlausible reports whether ClockSane, or, until that is known, whether the clock is not before the last
	// contact that this member has recorded. That suffices to sign for SigningGrace after it.
	ClockPlausible() bool
}

// Config configures an [Issuer]. All fields but DNSName and Registerer are required.
type Config struct {
	Store  *raftstore.Store
	Member string
	Home   spiffeid.TrustDomain
	Keys   keys.Store
	// DNSName, unless empty, is in the SVIDs of all members beside their own hosts.
	DNSName string
	// SigningGrace is the time for which this member signs after its last contact to the leader.
	SigningGrace time.Duration
	Contact      Contact
	// Conn returns the connection to another member, on which its SigningService is served. The issuer does not close
	// it.
	Conn  func(memberID string) (grpc.ClientConnInterface, error)
	Audit audit.Recorder
	// Rate is the number of SVIDs a second that one caller can request from this member, and Burst the number at once.
	// A negative rate disables the limit.
	Rate  float64
	Burst int
	// Linter checks what was signed.
	Linter *Linter
	// Changed fires after each [Issuer.Update].
	Changed *loop.Signal

	Now        func() time.Time
	Log        hclog.Logger
	Registerer prometheus.Registerer
}

// Issuer signs SVIDs with the active authorities of this member. Its methods can be called from any goroutine.
type Issuer struct {
	config     Config
	state      atomic.Pointer[State]
	limiter    *limiter
	signatures *prometheus.CounterVec
}

// New returns an issuer with an empty state; see [Issuer.Update].
func New(config Config) (*Issuer, error) {
	i := &Issuer{
		config: config,
		signatures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_signatures_total",
			Help: "SVIDs by kind and result: ok, failed, passed_on (another member signed), unaudited (withheld, " +
				"since the audit log could not be written).",
		}, []string{"kind", "result"}),
	}
	i.state.Store(&State{})
	if config.Registerer != nil {
		if err := config.Registerer.Register(i.signatures); err != nil {
			return nil, fmt.Errorf("register the metrics of signatures: %w", err)
		}
	}
	var err error
	if i.limiter, err = newLimiter(config.Rate, config.Burst, config.Now, config.Registerer); err != nil {
		return nil, fmt.Errorf("limit the callers: %w", err)
	}
	return i, nil
}

// SetRate changes the limits of every caller, as Rate and Burst of [Config] state them.
func (i *Issuer) SetRate(perSecond float64, burst int) { i.limiter.set(perSecond, burst) }

// Update reads the state of the tables. After an error the issuer continues with the state that it had.
func (i *Issuer) Update(view *raftstore.View) error {
	next, err := i.readState(view, i.state.Load())
	if err != nil {
		return err
	}
	i.state.Store(next)
	return nil
}

// State returns the state that the issuer signs from. It is never modified.
func (i *Issuer) State() *State { return i.state.Load() }

// awaitTimeout bounds [Issuer.Await].
const awaitTimeout = time.Second

// Await waits, for a second at most, until the issuer signs from a state as new as the revision. After that it no
// longer hands out signatures of an authority that was stopped at that revision.
func (i *Issuer) Await(ctx context.Context, revision raftstore.Revision) {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	for {
		changed := i.config.Changed.Next()
		if i.State().Revision >= revision || loop.WaitFor(ctx, changed, loop.MaxWait) != nil {
			return
		}
	}
}

// CanSign returns the reason for which this member must not sign now, or nil.
func (i *Issuer) CanSign() error {
	last := i.config.Contact.LastContact()
	if silent := i.config.Now().Sub(last); last.IsZero() {
		return errors.New("this member has had no contact to the leader since it started, and has recorded none from " +
			"before by which its clock is right")
	} else if silent > i.config.SigningGrace {
		return fmt.Errorf("this member's last contact to the leader was %v ago, and it signs for %v without",
			silent.Round(time.Second), i.config.SigningGrace)
	}
	if !i.config.Contact.ClockPlausible() {
		return errors.New("this member's clock is not known to be that of the others")
	}
	return nil
}

// requester is for whom an SVID is issued. The zero value is every caller that gets no name below /entente/.
type requester struct {
	// member is the member that requests a name of its own, or empty.
	member string
	// agent is set for the agent that this member or another one has attested.
	agent bool
}

// checkName refuses the names that a requester must not have.
func (i *Issuer) checkName(id spiffeid.ID, by requester) error {
	if by.agent {
		name, ok := strings.CutPrefix(id.Path(), grant.AgentPath)
		if !ok || id.TrustDomain() != i.config.Home || name == "" || strings.Contains(name, "/") {
			return status.Errorf(codes.PermissionDenied, "%s is not the ID of an agent of %s", id, i.config.Home.Name())
		}
		return nil
	}
	if !svid.Reserved(id) {
		if by.member != "" {
			return status.Errorf(codes.PermissionDenied,
				"%s is not below /%s/; members request no other names for themselves", id, svid.ReservedSegment)
		}
		return nil
	}
	if by.member == "" {
		return status.Errorf(codes.PermissionDenied,
			"%s is below /%s/, which only the server itself issues; choose another path", id, svid.ReservedSegment)
	}
	own, err := svid.MemberID(i.config.Home, by.member)
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	endpoint, err := svid.EndpointID(id.TrustDomain())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	if id != own && id != endpoint {
		return status.Errorf(codes.PermissionDenied, "member %s cannot have %s; only %s and %s", by.member, id, own,
			endpoint)
	}
	return nil
}

// IssueAgentX509 signs the X509-SVID of an agent, which the caller of this method has attested, within the rate of the
// agent. caller is for the audit log.
func (i *Issuer) IssueAgentX509(
	ctx context.Context, id spiffeid.ID, csr []byte, caller string,
) (*ententev1.IssueX509SVIDResponse, error) {
	if err := i.limiter.admit(access.SVIDCaller(id), plan.X509); err != nil {
		return nil, err
	}
	request := &ententev1.IssueX509SVIDRequest{SpiffeId: id.String(), Csr: csr}
	response, err := i.issueX509(ctx, request, caller, requester{agent: true})
	return response, signingError(err)
}
