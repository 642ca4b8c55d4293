package registration

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/registration/entry"
)

var (
	// agents are the attested agents by name.
	agents = raftstore.NewTable[*statev1.Agent]("agents", raftstore.RecordsNow).
		NamesWriter(writtenOn, func(a *statev1.Agent, member string) { a.RestoredOn = member })
	// agentKeys are the names of agents by their keys.
	agentKeys = raftstore.NewTable[*statev1.AgentKey]("agent_keys", raftstore.RecordsNow)
	// evicted are the agents that were evicted, by name.
	evicted = raftstore.NewTable[*statev1.EvictedAgent]("evicted_agents", raftstore.RecordsNow)
	// agentTokens are the open tokens by ID.
	agentTokens = raftstore.NewTable[*statev1.AgentToken]("agent_tokens", raftstore.RecordsNow)
	// entries are the registration entries by ID, and contents their IDs by what makes them unique.
	entries = raftstore.NewTable[*statev1.RegistrationEntry]("registration_entries").
		NamesWriter(entryWrittenOn, func(e *statev1.RegistrationEntry, member string) { e.RestoredOn = member })
	contents = raftstore.NewTable[*statev1.EntryContent]("registration_contents")
)

// writtenOn returns the member that wrote an agent's row, or restored it.
func writtenOn(a *statev1.Agent) string { return cmp.Or(a.GetRestoredOn(), a.GetWrittenOn()) }

// entryWrittenOn returns the member that wrote an entry's row, or restored it.
func entryWrittenOn(e *statev1.RegistrationEntry) string {
	return cmp.Or(e.GetRestoredOn(), e.GetWrittenOn())
}

// AgentsPrefix returns the prefix of all agents, for those that follow their changes.
func AgentsPrefix() raftstore.Prefix { return agents.Prefix("") }

// AgentID returns the SPIFFE ID of an agent.
func AgentID(home spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	return spiffeid.FromPath(home, grant.AgentPath+name)
}

// nameOf returns the name of the agent with a SPIFFE ID in the home trust domain.
func nameOf(home spiffeid.TrustDomain, id spiffeid.ID) (string, bool) {
	name, ok := strings.CutPrefix(id.Path(), grant.AgentPath)
	return name, ok && id.TrustDomain() == home && entry.CheckName("agent", name) == nil
}

// Attested reports whether the agent with a SPIFFE ID is attested with a key and not banned. key is the SHA-256 of the
// SubjectPublicKeyInfo of the agent's SVID, which is always for the key that it is attested with: the SVID of an agent
// that was evicted is worth nothing when its name has a new key.
func Attested(r raftstore.Reader, home spiffeid.TrustDomain, id spiffeid.ID, key [32]byte) (bool, error) {
	name, ok := nameOf(home, id)
	if !ok {
		return false, nil
	}
	row, found, err := agents.Get(r, name)
	return found && row.Value.GetBan() == nil && string(row.Value.GetIdentity()) == string(key[:]), err
}

// agentMessage returns an agent as the API shows it.
func (r *Room) agentMessage(row raftstore.Row[*statev1.Agent]) (*ententev1.Agent, error) {
	a := row.Value
	id, err := AgentID(r.cfg.Home, a.GetName())
	if err != nil {
		return nil, fmt.Errorf("the agent %q: %w", row.Key, err)
	}
	m := &ententev1.Agent{
		Name: a.GetName(), SpiffeId: id.String(), State: ententev1.AgentState_AGENT_STATE_ATTESTED,
		Attestation: a.GetAttestation(), Selectors: a.GetSelectors(), AttestTime: a.GetAttestTime(),
		Identity: fmt.Sprintf("%x", a.GetIdentity()), Revision: uint64(row.Revision), Etag: etag.Of(a.GetGeneration()),
		Entries: uint32(len(r.index.Of(a.GetName(), a.GetSelectors()))), //nolint:gosec // bounded by maxEntries
	}
	if ban := a.GetBan(); ban != nil {
		m.State, m.BanTime, m.BannedBy = ententev1.AgentState_AGENT_STATE_BANNED, ban.GetTime(), ban.GetBy()
	}
	return m, nil
}

// putAgent stores an agent, with a new generation.
func (r *Room) putAgent(tx *raftstore.Tx, a *statev1.Agent) error {
	a.WrittenOn, a.RestoredOn = r.cfg.Store.MemberID(), ""
	a.Generation = raftstore.NextGeneration(tx, a.GetGeneration())
	return storeAgent(tx, a)
}

func storeAgent(tx *raftstore.Tx, a *statev1.Agent) error {
	key := hex.EncodeToString(a.GetIdentity())
	if err := agentKeys.Put(tx, key, &statev1.AgentKey{Agent: a.GetName()}); err != nil {
		return err
	}
	return agents.Put(tx, a.GetName(), a)
}

func deleteAgent(tx *raftstore.Tx, a *statev1.Agent) error {
	if err := agentKeys.Delete(tx, hex.EncodeToString(a.GetIdentity())); err != nil {
		return err
	}
	return agents.Delete(tx, a.GetName())
}

// byIdentity returns the name of the agent with a key, or "".
func byIdentity(r raftstore.Reader, identity [32]byte) (string, error) {
	row, found, err := agentKeys.Get(r, hex.EncodeToString(identity[:]))
	if err != nil || !found {
		return "", err
	}
	return row.Value.GetAgent(), nil
}

// evict deletes an agent and records that, and deletes records that are older than evictedLife.
func evict(tx *raftstore.Tx, a *statev1.Agent, by string, now time.Time) error {
	old, err := evicted.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range old {
		if now.Sub(row.Value.GetTime().AsTime()) > evictedLife {
			if err := evicted.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	err = evicted.Put(tx, a.GetName(), &statev1.EvictedAgent{
		Time: timestamppb.New(now), By: by, Identity: a.GetIdentity(),
	})
	if err != nil {
		return err
	}
	return deleteAgent(tx, a)
}

// evictedLife is how long an eviction is kept: longer than the age of any snapshot that is still restored.
const evictedLife = 2 * 366 * 24 * time.Hour

// RemoveMember is part of the transaction that removes a member. It voids every token, since tokens name the member as
// one to send the secret to. If the member is compromised, it evicts each agent whose row that member wrote or
// restored, and deletes each such entry: who holds a member could have admitted agents, and entered IDs, of its own.
func RemoveMember(tx *raftstore.Tx, member string, compromised bool, now time.Time) error {
	tokens, err := agentTokens.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range tokens {
		if err := agentTokens.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	if !compromised {
		return nil
	}
	rows, err := agents.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Value.GetWrittenOn() != member && row.Value.GetRestoredOn() != member {
			continue
		}
		if err := evict(tx, row.Value, "removal of member "+member+" as compromised", now); err != nil {
			return err
		}
	}
	of, err := entries.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range of {
		if row.Value.GetWrittenOn() != member && row.Value.GetRestoredOn() != member {
			continue
		}
		if err := deleteEntry(tx, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// EndDomain is part of the transaction that deletes a hosted trust domain. It deletes the entries with IDs there, and
// returns how many these were.
func EndDomain(tx *raftstore.Tx, td spiffeid.TrustDomain) (deleted int, err error) {
	rows, err := entries.List(tx, "")
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		if !strings.HasPrefix(row.Value.GetSpiffeId(), td.IDString()+"/") {
			continue
		}
		if err := deleteEntry(tx, row.Value); err != nil {
			return 0, err
		}
		deleted++
	}
	return deleted, nil
}

// surviveRestore keeps what was decided about agents through the restore of a snapshot: those that are attested and
// banned now stay so, and those that were evicted do not return. Tokens of the snapshot are void.
func surviveRestore(before, _ *raftstore.View, tx *raftstore.Tx) error {
	tokens, err := agentTokens.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range tokens {
		if err := agentTokens.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	for row, err := range evicted.All(before, "") {
		if err != nil {
			return err
		}
		restored, found, err := agents.Get(tx, row.Key)
		if err == nil && found { // whatever its key: the name may have been evicted more than once
			err = deleteAgent(tx, restored.Value)
		}
		if err == nil {
			err = evicted.Put(tx, row.Key, row.Value)
		}
		if err != nil {
			return err
		}
	}
	for row, err := range agents.All(before, "") {
		if err != nil {
			return err
		}
		restored, found, err := agents.Get(tx, row.Key)
		if err == nil && found {
			err = deleteAgent(tx, restored.Value) // it may have had another key
		}
		if err == nil {
			err = storeAgent(tx, row.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// notFound is the error for an agent that does not exist.
func notFound(name string) error {
	return status.Errorf(codes.NotFound, "there is no agent %s: 'entente agent list' shows those that there are", name)
}
