set -e
unshare --net sh -ec '
    iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT
    iptables-nft -S INPUT | grep -qx -- "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"
    nft add table inet one
    nft add chain inet one two "{ type filter hook input priority 0; }"
    nft add rule inet one two ip saddr 10.1.2.3 counter drop
    nft list ruleset | grep -q "ip saddr 10.1.2.3 counter packets 0 bytes 0 drop"
    nft delete table inet one
    test -z "$(nft list table inet one 2> /dev/null)"
'
