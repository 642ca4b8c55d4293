package apierror

import (
	"fmt"
	"strconv"
	"strings"
)

// StateHeader is the metadata of a gRPC answer, and the header of an HTTP answer, that comes from a state which no
// leader has confirmed. [State] is its value.
const StateHeader = "entente-state"

const statePrefix, stateSuffix = "as of revision ", ", no leader"

// State returns what marks an answer from the state of a revision that no leader has confirmed.
func State(revision uint64) string { return fmt.Sprint(statePrefix, revision, stateSuffix) }

// ParseState is the inverse of [State].
func ParseState(text string) (revision uint64, ok bool) {
	digits, ok := strings.CutPrefix(text, statePrefix)
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, stateSuffix)
	if !ok {
		return 0, false
	}
	revision, err := strconv.ParseUint(digits, 10, 64)
	return revision, err == nil
}
