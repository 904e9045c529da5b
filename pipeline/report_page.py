"""The look and behaviour of a store's page: one HTML file without any other."""

PAGE = r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>tubelets: store</title>
<link rel="icon" href="data:,">
<style>
:root{color-scheme:light dark;--paper:#fafaf8;--ink:#1e1e1e;--dim:#5a5a5a;--line:#d5d5d0;--card:#fff;--mark:#0a63a0;--second:#b35806;--warn:#a3122a}
@media(prefers-color-scheme:dark){:root{--paper:#161618;--ink:#ececec;--dim:#ababab;--line:#3a3a3d;--card:#202023;--mark:#6cb8e8;--second:#f1a340;--warn:#ff8d96}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:1rem;background:var(--paper);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:.2rem 0}
p,dd,small,figcaption{color:var(--dim)}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;overflow-wrap:anywhere}dd{margin:0}
.health{list-style:none;padding:0}.health li{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--mark);
border-radius:6px;padding:.4rem .8rem;margin:.4rem 0}.health .bad{border-left-color:var(--warn);color:var(--warn)}
.big{display:flex;flex-wrap:wrap;gap:.6rem}.big div{background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.5rem .9rem}.big b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .55rem;text-align:right;border-bottom:1px
solid var(--line);font-weight:inherit}td:first-child,th:first-child,.words td,.words th{text-align:left}.wide{overflow-x:auto}th button{white-space:nowrap}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:.8rem;align-items:start}figure{margin:0;background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.6rem}svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:11px}
.first{fill:var(--mark)}.second{fill:var(--second)}.axis{stroke:var(--line)}.prior{fill:none;stroke:var(--second);stroke-width:1.5}
.key span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em;background:var(--mark)}.key .two{background:var(--second)}
.filters{display:flex;flex-wrap:wrap;gap:.4rem;margin:.5rem 0}button,select,input{font:inherit;color:inherit;background:var(--card);
border:1px solid var(--line);border-radius:6px;padding:.2rem .6rem;max-width:100%}button[aria-pressed=true]{border-color:var(--mark);
color:var(--mark)}:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:.8rem}.clips article{background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.6rem;overflow-wrap:anywhere}.clips img{width:100%;height:auto;display:block;margin:.3rem 0}
.clips ul{margin:.2rem 0;padding-left:1.1rem}code{font-size:.85em;color:var(--dim)}
</style></head><body>
<h1 id="title"></h1><div class="big" id="big"></div><ul class="health" id="health"></ul>
<dl id="about"></dl>
<h2>Show</h2><div class="filters"><label>Split <select id="split"><option value="">all</option></select></label></div>
<div class="filters" id="filters" role="group" aria-label="Classes"></div>
<h2>Classes</h2><div class="wide" tabindex="0" role="region" aria-label="Classes"><table id="classes"></table></div>
<h2>Tubes, boxes and matches</h2>
<p class="key">Where two colours stand side by side:<span></span>the whole frame (view 0)<span class="two"></span>augmented views, as parts of their own sum.</p>
<div class="charts" id="charts"></div>
<h2>Augmented views</h2><p>The crop that a view was taken from, and the tubes that these views kept and dropped (a tube is dropped if its centre leaves the view).</p>
<div class="wide" tabindex="0" role="region" aria-label="Augmented views"><table id="samplers"></table></div>
<h2>Rules that were applied to videos</h2><div class="wide" tabindex="0" role="region" aria-label="Rules"><table class="words" id="rules"></table></div>
<h2>The strangest clips</h2><p>First, middle and last frame of each, with its tubes. Look at these first: mistakes in annotations stand out here.</p>
<div class="filters"><label>Reason <select id="reason"><option value="">all</option></select></label>
<label>Order <select id="order"><option value="strange">strangest first</option><option value="id">video</option><option value="class">class</option></select></label>
<label>Find <input id="find" type="search" size="14"></label></div><p id="found" role="status"></p><div class="clips" id="clips"></div>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const D=JSON.parse(document.getElementById("data").textContent),$=id=>document.getElementById(id);
const make=(name,text,...kids)=>{const e=document.createElement(name);if(text!=null)e.textContent=text;e.append(...kids);return e};
const row=(tag,cells)=>make("tr",null,...cells.map(c=>c instanceof Node?make(tag,null,c):make(tag,c)));
const many=v=>v.toLocaleString("en"),total=list=>list.flat(2).reduce((a,b)=>a+b,0),part=(a,b)=>b?100*a/b:null;
const percent=v=>v==null?"–":v.toFixed(1)+" %",ns="http://www.w3.org/2000/svg";
const shown=new Set(D.classes.map((_,i)=>i)),there=new Set(D.groups.map(g=>g.label));
const groups=()=>D.groups.filter(g=>shown.has(g.label)&&(!$("split").value||g.split===$("split").value));
const add=(a,b)=>Array.isArray(a)?a.map((v,i)=>add(v,b[i])):a+b;
const sum=name=>{const list=groups();return list.length?list.map(g=>g[name]).reduce(add):null};
$("title").textContent=D.title;
for(const [good,text] of D.health){const li=make("li",(good?"":"Warning: ")+text);if(!good)li.className="bad";$("health").append(li)}
for(const [name,value] of D.about)$("about").append(make("dt",name),make("dd",value));
for(const split of new Set(D.groups.map(g=>g.split)))$("split").append(make("option",split));
for(const reason of new Set(D.strange.flatMap(c=>c.reasons.map(r=>r[0]))))$("reason").append(make("option",reason));
D.classes.forEach((name,i)=>{if(!there.has(i))return;const b=make("button",name);b.setAttribute("aria-pressed","true");b.dataset.label=i;
b.onclick=()=>{shown.has(i)?shown.delete(i):shown.add(i);b.setAttribute("aria-pressed",shown.has(i));draw()};$("filters").append(b)});
const all=make("button","all / none");all.onclick=()=>{const full=[...there].every(i=>shown.has(i));shown.clear();
if(!full)there.forEach(i=>shown.add(i));document.querySelectorAll("#filters [data-label]").forEach(b=>b.setAttribute("aria-pressed",!full));draw()};
$("filters").append(all);
function chart(title,note,width,height,paint){const figure=make("figure",null,make("h3",title)),svg=document.createElementNS(ns,"svg");
svg.setAttribute("viewBox","0 0 "+width+" "+height);svg.setAttribute("role","img");
const put=(n,a,t,tip)=>{const e=document.createElementNS(ns,n);for(const k in a)e.setAttribute(k,a[k]);if(t!=null)e.textContent=t;
if(tip){const q=document.createElementNS(ns,"title");q.textContent=tip;e.append(q)}svg.append(e)};
svg.setAttribute("aria-label",title+": "+(paint(put)||"nothing"));figure.append(svg);if(note)figure.append(make("figcaption",note));return figure}
function bars(title,labels,series,note){return chart(title,note,340,190,put=>{if(!series[0])return"";
const parts=series.map(s=>{const t=total(s);return s.map(v=>t?v/t:0)}),top=Math.max(1e-9,...parts.flat()),n=labels.length,step=330/n,every=Math.ceil(n*34/330);
put("line",{class:"axis",x1:5,x2:335,y1:165,y2:165});
parts.forEach((p,k)=>p.forEach((v,i)=>put("rect",{class:k?"second":"first",x:5+i*step+k*step*.9/parts.length,width:Math.max(.5,step*.9/parts.length-.5),
y:165-150*v/top,height:150*v/top},null,labels[i]+": "+many(series[k][i])+" ("+percent(100*v)+")")));
labels.forEach((l,i)=>{if(i%every===0)put("text",{x:5+i*step,y:180},l)});
return labels.map((l,i)=>l+": "+series.map(s=>many(s[i])).join(" and ")).join(", ")})}
function map(title,table,note,paint){const rows=table?table.length:1,columns=table?table[0].length:1,size=320/columns;
return chart(title,note,340,rows*size+20,put=>{if(!table)return"";const top=Math.max(1,...table.flat());
table.forEach((line,y)=>line.forEach((v,x)=>{if(v)put("rect",{class:"first",x:10+x*size,y:2+y*size,width:size,height:size,
"fill-opacity":(.08+.92*v/top).toFixed(3)},null,many(v))}));put("rect",{x:10,y:2,width:320,height:rows*size,fill:"none",class:"axis"});
if(paint)paint(put,size,rows);return "the fullest cell has "+many(top)+" boxes"})}
function sizes(){const edges=D.sizes,n=edges.length-1,table=sum("sizes"),at=v=>Math.log(v/edges[0])/Math.log(edges[n]/edges[0]);
return map("Box sizes against priors",table&&[...table].reverse(),"Width to the right, height upwards, in the network's input pixels, on logarithmic axes, of the whole frame. Rings: the priors (larger ones at the edge).",
(put,size)=>{const side=n*size;for(const [layer,w,h] of D.priors)put("circle",{class:"prior",r:4,cx:10+side*Math.min(1,at(w)),cy:2+side*(1-Math.min(1,at(h)))},null,
D.layers[layer]+": "+w.toFixed(0)+" x "+h.toFixed(0));for(let i=0;i<n;i+=3)put("text",{x:10+i*size,y:side+15},edges[i].toFixed(0))})}
const COLUMNS=[["class",g=>D.classes[g.label]],["split",g=>g.split],["videos",g=>g.videos,many],["tubes",g=>g.tubes,many],["boxes",g=>g.boxes,many],
["clips",g=>g.clips,many],["tubes in clips",g=>g.covered,many],["priors a tube",g=>g.covered?total([g.layers[0]])/g.covered:null,v=>v==null?"–":v.toFixed(1)],
["best overlap < 0.5",g=>part(total(g.overlap[0].slice(0,g.overlap[0].length/2)),total(g.overlap[0])),percent],
["dropped by views",g=>part(total(g.dropped),total(g.dropped)+total(g.kept)),percent]];
let by=0,turn=1;
function classes(){const head=make("tr"),of=COLUMNS[by][1];COLUMNS.forEach(([name],i)=>{const th=make("th"),b=make("button",name+(i===by?(turn>0?" ▲":" ▼"):""));
th.scope="col";th.setAttribute("aria-sort",i===by?(turn>0?"ascending":"descending"):"none");
b.onclick=()=>{turn=i===by?-turn:i<2?1:-1;by=i;classes();$("classes").querySelectorAll("button")[i].focus()};th.append(b);head.append(th)});
const list=groups().sort((a,b)=>{const x=of(a)??-1,y=of(b)??-1;return turn*(x<y?-1:x>y?1:0)});
$("classes").replaceChildren(head,...list.map(g=>row("td",COLUMNS.map(([,value,write])=>write?write(value(g)):value(g)))))}
function draw(){classes();const g=groups();
$("big").replaceChildren(...["videos","tubes","boxes","clips"].map(n=>make("div",null,make("b",many(total([sum(n)??0]))),make("small",n))));
$("charts").replaceChildren(bars("Tube lengths, frames",D.lengths,[sum("lengths")]),
map("Where boxes are",sum("places"),"Boxes that reach each place of the frame."),sizes(),
bars("Matches by prior layer",D.layers,sum("layers")||[null]),
bars("Best overlap of a tube in a clip",D.overlaps,sum("overlap")||[null],"Left of 0.5 no prior fits: the tube has only the one prior that is forced on it, or none."),
bars("Priors matched to a tube in a clip",D.matches,sum("matches")||[null]));
const kept=sum("kept"),dropped=sum("dropped");
$("samplers").replaceChildren(row("th",["crop","views (of all classes)","tubes kept","tubes dropped","dropped"]),...D.samplers.map(([name,views],i)=>
row("td",[name,many(views),kept?many(kept[i]):0,dropped?many(dropped[i]):0,kept?percent(part(dropped[i],kept[i]+dropped[i])):"–"])));strange()}
const order={id:(a,b)=>a.id<b.id?-1:a.id>b.id?1:a.first-b.first,class:(a,b)=>a.label-b.label||order.id(a,b)};
function strange(){const reason=$("reason").value,words=$("find").value.toLowerCase(),split=$("split").value;
const amount=c=>c.reasons.find(r=>r[0]===reason)[1];
let list=D.strange.filter(c=>shown.has(c.label)&&(!split||c.split===split)&&(!reason||c.reasons.some(r=>r[0]===reason))&&
(c.id+" "+D.classes[c.label]).toLowerCase().includes(words));
if($("order").value!=="strange")list.sort(order[$("order").value]);else if(reason)list.sort((a,b)=>amount(a)-amount(b));
$("found").textContent=list.length+" of "+D.strange.length+" clips";$("clips").replaceChildren(...list.map(card))}
function card(c){const image=make("img");image.src=c.picture;[image.width,image.height]=c.size;
image.alt="frames "+c.frames.join(", ")+" of "+c.id;
return make("article",null,make("b",c.id),make("div",null,make("small",D.classes[c.label]+", "+c.split+", frames "+c.frames.join(", "))),image,
make("ul",null,...c.reasons.map(([name,,detail])=>make("li",name+": "+detail))),make("code","--clip "+c.id+":"+c.first))}
for(const id of ["reason","order"])$(id).onchange=strange;$("find").oninput=strange;$("split").onchange=draw;
$("rules").replaceChildren(row("th",["rule","videos","what it does","which"]),...(D.rules.length?D.rules.map(([name,text,videos])=>
row("td",[name,many(videos.length),text,videos.slice(0,5).join(", ")+(videos.length>5?" ...":"")])):[row("td",["none","","",""])]));
draw();
</script></body></html>
"""
