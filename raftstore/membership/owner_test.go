package membership

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestOwner(t *testing.T) {
	assert.Empty(t, Owner("x", nil))
	three, two := []string{"a", "b", "c"}, []string{"a", "b"}
	count := map[string]int{}
	for i := range 3000 {
		key := string(rune('a'+i%26)) + time.Duration(i).String()
		owner := Owner(key, three)
		assert.Equal(t, owner, Owner(key, []string{"c", "a", "b"}), "the order of members does not matter")
		if owner != "c" {
			assert.Equal(t, owner, Owner(key, two), "only the keys of c move")
		}
		count[owner]++
	}
	for _, m := range three {
		assert.InDelta(t, 1000, count[m], 150)
	}
}
