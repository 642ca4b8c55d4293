package entry

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
)

// SetRow sets the fields of a row that the entry has.
func (e Entry) SetRow(row *statev1.RegistrationEntry) {
	row.Id, row.Agent, row.ParentSelectors = e.ID, e.Agent, e.ParentSelectors
	row.SpiffeId, row.Selectors = e.SPIFFEID.String(), e.Selectors
	row.X509SvidTtl, row.JwtSvidTtl = duration(e.X509TTL), duration(e.JWTTTL)
	row.DnsNames, row.Hint = e.DNSNames, e.Hint
	row.FederatesWith, row.FederatesWithAll = e.FederatesWith, e.FederatesWithAll
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// Decode returns the entry of a row.
func Decode(row *statev1.RegistrationEntry) (Entry, error) { return Parse(Message(row, 0)) }

// Message returns a row as the API shows it.
func Message(row *statev1.RegistrationEntry, revision uint64) *ententev1.Entry {
	return &ententev1.Entry{
		Id: row.GetId(), Agent: row.GetAgent(), ParentSelectors: row.GetParentSelectors(), SpiffeId: row.GetSpiffeId(),
		Selectors: row.GetSelectors(), X509SvidTtl: row.GetX509SvidTtl(), JwtSvidTtl: row.GetJwtSvidTtl(),
		DnsNames: row.GetDnsNames(), FederatesWith: row.GetFederatesWith(),
		FederatesWithAll: row.GetFederatesWithAll(), Hint: row.GetHint(), CreateTime: row.GetCreateTime(),
		CreatedBy: row.GetCreatedBy(), WrittenBy: row.GetWrittenBy(), Revision: revision,
		Etag: etag.Of(row.GetGeneration()),
	}
}
