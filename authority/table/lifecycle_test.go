package table_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/authority/plan"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

func defaults() plan.Settings {
	return plan.Settings{
		RefreshHint: plan.DefaultRefreshHint, X509SVIDTTL: plan.DefaultX509SVIDTTL,
		JWTSVIDTTL: plan.DefaultJWTSVIDTTL, CATTL: plan.DefaultCATTL,
	}
}

// TestTranscripts plays the scripts in testdata/lifecycle. A line that begins with "> " is a command; the lines after
// it are its result.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/lifecycle/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			require.NoError(t, err)
			got := play(t, string(script))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			require.Equal(t, string(script), got)
		})
	}
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	s := newSimulation(defaults())
	s.log = func(line string) { out.WriteString(line + "\n") }
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
			continue
		}
		command, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue
		}
		out.WriteString(line + "\n")
		words := strings.Fields(command)
		switch words[0] {
		case "start": // members begin to act
			for _, name := range words[1:] {
				s.member(name)
			}
			s.settle()
		case "run":
			s.run(parseDuration(t, words[1]))
		case "rotate":
			s.rotations.Last++
			if len(words) > 1 {
				s.rotations.Anchors = s.rotations.Last
			}
			fmt.Fprintf(&out, "expected to take %v\n", plan.RotationTakes(s.situation(s.members[0])))
			s.settle()
		case "sleep":
			s.member(words[1]).asleep = true
		case "wake":
			s.member(words[1]).asleep = false
			s.settle()
		case "lose": // the member loses the key of an authority
			s.member(words[1]).lost[words[2]] = true
			s.settle()
		case "remove":
			s.member(words[1]).removed = true
			s.settle()
		case "clock": // the member's clock is off by so much
			s.member(words[1]).skew = parseDuration(t, words[2])
			s.settle()
		case "leader":
			s.lead = words[1]
		case "upstream": // X.509 authorities are below a root that is not the members' own
			s.upstream = true
		case "prepare":
			s.rotations.Reserve++
			s.settle()
		case "activate":
			s.operateNow(&out, func() ([]plan.Action, error) {
				return plan.ActivateAuthority(s.all(), words[1], s.now)
			})
		case "taint":
			s.operateNow(&out, func() ([]plan.Action, error) { return plan.TaintAuthority(s.all(), words[1]) })
		case "revoke":
			s.operateNow(&out, func() ([]plan.Action, error) { return plan.RevokeAuthority(s.all(), words[1]) })
		case "revoke-anchor":
			s.operateNow(&out, func() ([]plan.Action, error) {
				return plan.RevokeAnchor(s.all(), strings.Join(words[1:], " "), false)
			})
		case "hint":
			s.settings = s.settings.WithHint(parseDuration(t, words[1]), s.now)
		case "x509":
			s.settings.X509SVIDTTL = parseDuration(t, words[1])
		case "show":
			out.WriteString(s.show())
		default:
			t.Fatalf("unknown command %q", line)
		}
	}
	for _, b := range s.broken {
		out.WriteString("BROKEN: " + b + "\n")
	}
	require.Empty(t, s.broken)
	return out.String()
}

// operateNow carries out an operator action, or logs why it is refused.
func (s *simulation) operateNow(out io.Writer, plan func() ([]plan.Action, error)) {
	actions, err := plan()
	if err != nil {
		fmt.Fprintf(out, "refused: %v\n", err)
		return
	}
	s.operate(actions)
}

func parseDuration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	require.NoError(t, err)
	return d
}

// TestGuarantees: members start, sleep, lead, rotate, lose keys and have wrong clocks at random, while operators
// prepare, activate, taint and revoke. The guarantees of package authority hold at every moment.
func TestGuarantees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(defaults())
		s.upstream = rapid.Bool().Draw(t, "upstream")
		var lines []string
		s.log = func(line string) { lines = append(lines, line) }
		s.member("a")
		s.settle()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "member")
			if len(s.rows) == 0 {
				t.Fatalf("there is no authority left\n%s", strings.Join(lines, "\n"))
			}
			row := s.rows[rapid.IntRange(0, len(s.rows)-1).Draw(t, "authority")].GetId()
			var actions []plan.Action
			switch rapid.IntRange(0, 15).Draw(t, "step") {
			case 0:
				s.member(name)
			case 1:
				s.rotations.Last++
			case 2:
				s.rotations.Last++
				s.rotations.Anchors = s.rotations.Last
			case 3:
				s.member(name).asleep = s.servedWithout(name) && !s.skewed()
			case 4:
				s.member(name).asleep = false
			case 5:
				if s.servedWithout(name) { // somebody keeps the cluster signing
					for _, row := range s.rows {
						if row.GetMember() == name {
							s.member(name).lost[row.GetId()] = rapid.Bool().Draw(t, "lost")
						}
					}
				}
			case 6:
				s.rotations.Reserve++
			case 7:
				actions, _ = plan.ActivateAuthority(s.all(), row, s.now)
				if len(actions) > 0 && !s.serves(row) {
					actions = nil // an operator's word for a member that cannot sign is a choice, not a broken promise
				}
			case 8:
				actions, _ = plan.TaintAuthority(s.all(), row)
				actions = s.unlessAbsent(actions)
			case 9:
				actions, _ = plan.RevokeAuthority(s.all(), row)
				actions = s.unlessAbsent(actions)
			case 10:
				s.lead = name
			case 11:
				// One clock of three: with fewer members the wrong one is not known.
				if s.servedWithout(name) && len(s.members) == 3 && !s.skewed() &&
					!slices.ContainsFunc(s.members, func(m *simulated) bool { return m.asleep }) {
					s.member(name).skew = rapid.SampledFrom([]time.Duration{24 * time.Hour, -24 * time.Hour}).
						Draw(t, "skew")
				}
			case 12:
				s.member(name).skew = 0
			default:
				s.run(time.Duration(rapid.IntRange(1, 40*3600).Draw(t, "seconds")) * time.Second)
			}
			s.operate(actions)
			s.atRest()
			for _, kind := range plan.Kinds {
				if !s.signable(kind) {
					t.Fatalf("no member can sign %s at %s\n%s\n%s", kind, s.clock(s.now), s.show(),
						strings.Join(lines, "\n"))
				}
			}
			perMember := map[string]int{}
			for _, row := range s.rows {
				key := row.GetMember() + row.GetKind().String()
				if perMember[key]++; perMember[key] > 40 {
					t.Fatalf("authorities pile up:\n%s", s.show())
				}
			}
		}
		if len(s.broken) > 0 {
			t.Fatalf("%s\n%s", strings.Join(s.broken, "\n"), strings.Join(lines, "\n"))
		}
	})
}
