create table item (id integer primary key, grp integer, name text, price real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 12000)
insert into item select i, (i * 7919) % 101, 'item ' || ((i * 104729) % 99991), (i * 31 % 1000) / 8.0 from n;
create index by_group on item (grp, price);
create index by_name on item (name);
select count(*), sum(price), min(name), max(name) from item;
select grp, count(*), avg(price) from item group by grp order by 3 desc, 1 limit 5;
select a.id, b.id from item a join item b on a.grp = b.grp and a.price = b.price and a.id < b.id order by 1, 2 limit 5;
update item set price = price * 1.1 where grp % 3 = 0;
delete from item where name like '%7';
select count(*), round(sum(price), 3) from item;
